package osctl

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/client"
	"github.com/incusos/incusos/internal/attest"
)

// A SavedAttestation is what is kept of an attestation, to be checked later or by others.
type SavedAttestation struct {
	Nonce       string          `json:"nonce"`  // that was asked with, hexadecimal
	Secret      string          `json:"secret"` // of the challenge, hexadecimal
	Attestation api.Attestation `json:"attestation"`
}

const longestAttestation = 32 << 20

// AskAttestation asks a machine twice: for its keys, and then with a challenge for the
// TPM that should hold them both.
func AskAttestation(ctx context.Context, m *client.Client) (s SavedAttestation, err error) {
	nonce := make([]byte, 32)
	rand.Read(nonce) //nolint:errcheck // never fails
	s.Nonce = hex.EncodeToString(nonce)
	first, err := m.Attestation(ctx, s.Nonce, "")
	if err != nil {
		return s, err
	}
	challenge, err := attest.NewChallenge(first)
	if err != nil {
		return s, fmt.Errorf("what the machine answered: %w", err)
	}
	s.Secret = challenge.Secret
	s.Attestation, err = m.Attestation(ctx, s.Nonce, challenge.Credential)
	return s, err
}

// ReadAttestation reads what was saved; the nonce in the file counts unless another is
// given.
func ReadAttestation(file, nonce string) (s SavedAttestation, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return s, err
	}
	if len(b) > longestAttestation {
		return s, fmt.Errorf("%q has %d bytes; want at most %d", file, len(b), longestAttestation)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("%q: %w", file, err)
	}
	if nonce != "" {
		s.Nonce = nonce
	}
	return s, nil
}

// Save writes s to a file.
func (s SavedAttestation) Save(file string) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o600)
}

// Judge shows what s proves, and is an error if anything is refused.
func (s SavedAttestation) Judge(d attest.Demands, p Printer) error {
	nonce, err := attest.ParseNonce(s.Nonce)
	if err != nil {
		return err
	}
	d.Nonce, d.Secret = nonce, s.Secret
	r := attest.Verify(s.Attestation, d)
	if p.Format != Table {
		return errors.Join(p.Value(r), r.Refusal())
	}
	for _, f := range r.Findings {
		fmt.Fprintf(p.Out, "%-9s  %s: %s\n", f.Verdict, f.What, visible(f.Why))
	}
	for _, kept := range []struct{ name, value string }{{"key", r.Key}, {"volume", r.Volume}} {
		if kept.value != "" {
			fmt.Fprintf(p.Out, "--%s %s\n", kept.name, kept.value)
		}
	}
	return r.Refusal()
}
