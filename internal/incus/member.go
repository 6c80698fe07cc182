package incus

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/incusos/incusos/internal/sys"
)

// Files of Incus: what it shows to other members of its cluster as their client, and
// what all members show as servers.
const (
	dir         = "/var/lib/incus"
	clientCert  = dir + "/server.crt"
	clientKey   = dir + "/server.key"
	clusterCert = dir + "/cluster.crt"
)

// longestPEM is the most that a certificate or a key may have, in bytes.
const longestPEM = 1 << 20

// peerTime is how long another member may take to answer.
const peerTime = 20 * time.Second

// An AheadError is why Incus serves nothing though it runs well: the schema of its
// database is newer than that of other members of its cluster, and it waits until they
// have a new Incus too.
type AheadError struct {
	Of []string // names of the members that it waits for
}

func (e *AheadError) Error() string {
	return "Incus is newer than that of other members of its cluster, and serves nothing before they have it too: " + strings.Join(e.Of, ", ")
}

// Starting reports whether Incus runs, but does not serve its API yet.
func Starting(err error) bool { return refused(err, http.StatusServiceUnavailable) }

// Ahead returns an AheadError if Incus waits for other members, and nil if it does not.
// An Incus that waits answers no request for its API, as one that starts does not, so the
// databases have to tell: Incus lets its own machine and other members look at them from
// before it serves anything else, as it does for `incus admin sql`. Any other error means
// that it cannot be told.
func (c *Client) Ahead(ctx context.Context) error {
	if err := c.Do(ctx, http.MethodGet, "/internal/ready", nil, nil); !Starting(err) {
		return err
	}
	own, err := c.query(ctx, "local", "SELECT value FROM config WHERE key = 'cluster.https_address'")
	if err != nil || len(own) == 0 {
		return err // in no cluster
	}
	members, err := c.query(ctx, "global", "SELECT address, name, schema FROM nodes ORDER BY name")
	if err != nil {
		return err
	}
	return ahead(fmt.Sprint(own[0]...), members)
}

// ahead compares the schema of the member at an address with that of the others.
func ahead(address string, members [][]any) error {
	var of []string
	schema, known := 0.0, false
	for _, m := range members {
		if len(m) != 3 {
			return fmt.Errorf("a member of the cluster has %d columns in the database of Incus; want 3", len(m))
		}
		if m[0] == address {
			schema, known = m[2].(float64)
		}
	}
	if !known {
		return fmt.Errorf("the database of Incus has no member at %s", address)
	}
	for _, m := range members {
		if s, ok := m[2].(float64); ok && s < schema {
			of = append(of, fmt.Sprint(m[1]))
		}
	}
	if len(of) == 0 {
		return nil
	}
	return &AheadError{of}
}

// query returns the rows that a query finds in one of Incus' databases.
func (c *Client) query(ctx context.Context, database, query string) ([][]any, error) {
	var batch struct {
		Results []struct {
			Rows [][]any `json:"rows"`
		} `json:"Results"`
	}
	if err := c.Do(ctx, http.MethodPost, "/internal/sql", map[string]string{"database": database, "query": query}, &batch); err != nil {
		return nil, fmt.Errorf("looking into the %s database of Incus: %w", database, err)
	}
	if len(batch.Results) != 1 {
		return nil, fmt.Errorf("looking into the %s database of Incus: it has %d answers to one query", database, len(batch.Results))
	}
	return batch.Results[0].Rows, nil
}

// Peer returns a client of the Incus of another member of the cluster, at an address
// such as "192.0.2.7:8443". It comes as the Incus of this machine does, and speaks only
// to one that has the certificate of the cluster. It sends nothing yet.
func Peer(files sys.Dir, address string) (*Client, error) {
	cert, err := readPEM(files, clientCert)
	if err != nil {
		return nil, err
	}
	key, err := readPEM(files, clientKey)
	if err != nil {
		return nil, err
	}
	mine, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%s with its key: %w", clientCert, err)
	}
	text, err := readPEM(files, clusterCert)
	if err != nil {
		return nil, err
	}
	theirs, _ := pem.Decode(text)
	if theirs == nil {
		return nil, fmt.Errorf("%s is no certificate; want one in PEM", clusterCert)
	}
	return &Client{base: "https://" + address, http: &http.Client{Timeout: peerTime, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{
			MinVersion:         tls.VersionTLS13,
			Certificates:       []tls.Certificate{mine},
			InsecureSkipVerify: true, // members all have that one certificate, which names none of them
			VerifyConnection: func(s tls.ConnectionState) error {
				if !bytes.Equal(s.PeerCertificates[0].Raw, theirs.Bytes) {
					return errors.New("it has not the certificate of the cluster")
				}
				return nil
			},
		},
	}}}, nil
}

func readPEM(files sys.Dir, name string) ([]byte, error) {
	info, err := files.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.Size() > longestPEM {
		return nil, fmt.Errorf("%s has %d bytes; want at most %d", name, info.Size(), longestPEM)
	}
	return files.ReadFile(name)
}
