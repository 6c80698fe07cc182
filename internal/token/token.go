// Package token has keys sign that are in a token and never leave it: a smart card, a
// security key, a hardware security module, or SoftHSM for tests. Which key is meant says
// a URI.
//
//	uri.go    URIs of keys in tokens
//	token.go  asking a token for a public key, and having it sign
//
// Tokens are reached by libraries in C (PKCS #11), each maker's own, which this program
// cannot load: pkcs11-tool of OpenSC does. What is signed with the keys is package repo's
// business, and keys in files are package keys'.
package token

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/incusos/incusos/internal/sys"
)

const tool = "pkcs11-tool"

// pinVariable passes the PIN to pkcs11-tool: its command line, everybody sees.
const pinVariable = "INCUSOS_TOKEN_PIN_OF_CALL"

const (
	// answerTime is how long a token may take; some want to be touched first.
	answerTime = 2 * time.Minute
	maxPIN     = 255 // bytes, as tokens have it
)

// Tokens are those that this machine reaches. Its methods may not be called at once.
type Tokens struct {
	Exec   sys.Runner
	Module string // library that knows tokens of which the URI does not say it
	// PIN asks for that of a token, once, when the URI names no file; nil: nobody knows.
	PIN func(ctx context.Context, token string) (string, error)

	pins map[string]string // by label of the token
}

// Public returns the public key that belongs to a key.
func (t *Tokens) Public(ctx context.Context, uri string) (crypto.PublicKey, error) {
	l, err := t.locate(uri)
	if err != nil {
		return nil, err
	}
	return t.public(ctx, l)
}

// Signer returns a key, which signs what has the SHA-256 that it is given.
func (t *Tokens) Signer(ctx context.Context, uri string) (crypto.Signer, error) {
	l, err := t.locate(uri)
	if err != nil {
		return nil, err
	}
	public, err := t.public(ctx, l)
	if err != nil {
		return nil, err
	}
	pin, err := t.pin(ctx, l)
	if err != nil {
		return nil, fmt.Errorf("the PIN of the token %q: %w", l.token, err)
	}
	return &key{ctx: ctx, exec: t.Exec, location: l, public: public, pin: pin}, nil
}

func (t *Tokens) locate(uri string) (location, error) {
	l, err := parse(uri)
	if err != nil {
		return location{}, err
	}
	if l.module == "" {
		l.module = t.Module
	}
	if l.module == "" {
		return location{}, fmt.Errorf("no library knows the token %q; name one with --pkcs11-module, or with module-path in the URI", l.token)
	}
	return l, nil
}

func (t *Tokens) public(ctx context.Context, l location) (*ecdsa.PublicKey, error) {
	out, err := l.run(ctx, t.Exec, sys.Cmd{}, "--read-object", "--type", "pubkey")
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(out); block != nil { // as OpenSC 0.23 has Ed25519
		out = block.Bytes
	}
	public, err := x509.ParsePKIXPublicKey(out)
	if err != nil {
		return nil, fmt.Errorf("the public key of %s: %w", l, err)
	}
	k, ok := public.(*ecdsa.PublicKey)
	if !ok || k.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%s is of type %T; want ECDSA with the curve P-256: %s hands a token no more than 1,024 bytes, and Ed25519 signs whole messages", l, public, tool)
	}
	return k, nil
}

// pin returns the PIN of a token.
func (t *Tokens) pin(ctx context.Context, l location) (pin string, err error) {
	if pin, ok := t.pins[l.token]; ok {
		return pin, nil
	}
	switch {
	case l.pin != "":
		pin, err = readPIN(l.pin)
	case t.PIN != nil:
		pin, err = t.PIN(ctx, l.token)
	default:
		err = errors.New("nobody knows it; name a file with pin-source in the URI")
	}
	if err == nil && (pin == "" || len(pin) > maxPIN || strings.ContainsAny(pin, "\x00\r\n")) {
		err = fmt.Errorf("want one line of 1 to %d bytes", maxPIN)
	}
	if err != nil {
		return "", err
	}
	if t.pins == nil {
		t.pins = make(map[string]string)
	}
	t.pins[l.token] = pin
	return pin, nil
}

// readPIN reads a PIN from a file, which must not be for all to read.
func readPIN(file string) (string, error) {
	info, err := os.Stat(file)
	if err != nil {
		return "", err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return "", fmt.Errorf("%q has mode %04o, which lets others in; want 0600", file, mode)
	}
	if info.Size() > maxPIN+2 {
		return "", fmt.Errorf("%q has %d bytes; want one line of 1 to %d", file, info.Size(), maxPIN)
	}
	b, err := os.ReadFile(file)
	return strings.TrimRight(string(b), "\r\n"), err
}

// A key is one in a token.
type key struct {
	ctx      context.Context //nolint:containedctx // crypto.Signer has none
	exec     sys.Runner
	location location
	public   *ecdsa.PublicKey
	pin      string
}

func (k *key) Public() crypto.PublicKey { return k.public }

// Sign implements crypto.Signer: it returns the signature of a digest in ASN.1.
func (k *key) Sign(_ io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	if o.HashFunc() != crypto.SHA256 || len(digest) != sha256.Size {
		return nil, fmt.Errorf("%s is asked to sign %d bytes; want a SHA-256", k.location, len(digest))
	}
	c := sys.Cmd{Stdin: bytes.NewReader(digest), Env: []string{pinVariable + "=" + k.pin}}
	signature, err := k.location.run(k.ctx, k.exec, c, "--login", "--pin", "env:"+pinVariable, "--sign", "--mechanism", "ECDSA", "--signature-format", "openssl")
	if err != nil {
		return nil, err
	}
	if !ecdsa.VerifyASN1(k.public, digest, signature) {
		return nil, fmt.Errorf("%s gave a signature that its public key does not verify", k.location)
	}
	return signature, nil
}

func (l location) String() string {
	return fmt.Sprintf("the key %s in the token %q", l.id, l.token)
}

// run runs pkcs11-tool on a key, and says in a sentence what it complains of.
func (l location) run(ctx context.Context, with sys.Runner, c sys.Cmd, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	c.Name = tool
	c.Args = append([]string{"--module", l.module, "--token-label", l.token, "--id", l.id}, args...)
	if l.object != "" {
		c.Args = append(c.Args, "--label", l.object)
	}
	out, err := with.Run(ctx, c)
	return out, l.explain(err)
}

// complaints are what pkcs11-tool says, and what that means. Of PKCS #11 are the names of
// errors that begin with CKR; the rest is of OpenSC 0.23 to 0.26.
const complaints = `
CKR_PIN_INCORRECT        the PIN of the token is wrong; a few wrong ones lock it
CKR_PIN_LOCKED           the token is locked after too many wrong PINs
CKR_PIN_LEN_RANGE        the PIN of the token is wrong: it has another length
No slot with token named there is no such token; see whether it is plugged in
No slots                 there is no token at all; see whether it is plugged in
Failed to load pkcs11    there is no such library; name another one with --pkcs11-module
object not found         there is no public key with that id and label
Private key not found    there is no private key with that id`

func (l location) explain(err error) error {
	failed, ran := errors.AsType[*sys.ExecError](err)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sys.ErrNoProgram):
		return fmt.Errorf("%s: there is no %s on this machine; install OpenSC", l, tool)
	case !ran:
		return fmt.Errorf("%s: %w", l, err)
	}
	for line := range strings.Lines(strings.TrimSpace(complaints)) {
		if says := strings.TrimSpace(line[:25]); strings.Contains(failed.Stderr, says) {
			return fmt.Errorf("%s, by %s: %s", l, l.module, strings.TrimSpace(line[25:]))
		}
	}
	return fmt.Errorf("%s, by %s: %w", l, l.module, err)
}
