package client

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
)

// Certificates are who the client is and whom it talks to, in PEM.
type Certificates struct {
	Cert, Key []byte // the client's; Incus must trust it
	// Server is the certificate of the machine's Incus, and no other will do.
	// Without it the machine needs one that this system trusts.
	Server []byte
}

// Connect returns the client of the machine whose Incus is at base, such as
// "https://192.0.2.10:8443".
func Connect(base string, c Certificates) (*Client, error) {
	if u, err := url.Parse(base); err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%q is no address of a machine; want one such as https://192.0.2.10:8443", base)
	}
	pair, err := tls.X509KeyPair(c.Cert, c.Key)
	if err != nil {
		return nil, fmt.Errorf("reading the client's certificate: %w", err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}}
	if len(c.Server) > 0 {
		if err := pin(config, c.Server); err != nil {
			return nil, err
		}
	}
	return Remote(&http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}}, base), nil
}

// pin accepts one certificate and no other. What Incus makes for itself names
// neither its address nor anyone who vouches for it.
func pin(config *tls.Config, text []byte) error {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return errors.New("reading the machine's certificate: it is not PEM")
	}
	if _, err := x509.ParseCertificate(block.Bytes); err != nil {
		return fmt.Errorf("reading the machine's certificate: %w", err)
	}
	config.InsecureSkipVerify = true // replaced by the check below
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 || !bytes.Equal(state.PeerCertificates[0].Raw, block.Bytes) {
			return errors.New("the machine has another certificate than the one given; if it was installed anew, get the new one from its console or its seed")
		}
		return nil
	}
	return nil
}
