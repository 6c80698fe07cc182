package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/incusos/incusos/internal/keys"
	"github.com/incusos/incusos/internal/osctl"
	"github.com/incusos/incusos/internal/publish"
	"github.com/incusos/incusos/internal/repo"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/token"
)

// signing are the flags that say who signs.
type signing struct {
	dir     string
	files   []string
	expires int
}

// pinVariable has the PIN of tokens; it is for where nobody sits at a terminal.
const pinVariable = "INCUSOS_TOKEN_PIN"

const moduleFlag = "pkcs11-module"

// openTokens returns the tokens that a command reaches. Their PIN is in the environment,
// or is asked for.
func openTokens(c *cobra.Command) *token.Tokens {
	module, _ := c.Flags().GetString(moduleFlag) //nolint:errcheck // every command that has keys has it
	return &token.Tokens{Exec: sys.Real().Exec, Module: module, PIN: func(ctx context.Context, label string) (string, error) {
		if pin, ok := os.LookupEnv(pinVariable); ok {
			return pin, nil
		}
		pin, err := osctl.ReadSecret(ctx, c.InOrStdin(), c.ErrOrStderr(), fmt.Sprintf("PIN of the token %q", label))
		return string(pin), err
	}}
}

func (s *signing) addFlags(c *cobra.Command) {
	c.Flags().StringVar(&s.dir, "keys", "", "sign with the update key of the trust root in `DIR`")
	c.Flags().StringArrayVar(&s.files, "sign-with", nil, "sign with the private key in `FILE` too (PEM, Ed25519 or ECDSA P-256), or in a token (pkcs11:token=LABEL;id=%01, ECDSA P-256); repeatable")
	c.Flags().IntVar(&s.expires, "valid", 30, "let the repository expire after so many `DAYS` unless it is refreshed")
	c.Flags().String(moduleFlag, "", "reach tokens by the library in `FILE`, unless the name of a key says otherwise")
}

// signer returns the private key in a file or in a token.
func signer(ctx context.Context, t *token.Tokens, name string) (crypto.Signer, error) {
	if token.Is(name) {
		return t.Signer(ctx, name)
	}
	return keys.Signer(name)
}

// public returns the public key in a file or in a token.
func public(ctx context.Context, t *token.Tokens, name string) (crypto.PublicKey, error) {
	if token.Is(name) {
		return t.Public(ctx, name)
	}
	return keys.Public(name)
}

func (s *signing) load(c *cobra.Command) (publish.Signing, error) {
	out := publish.Signing{Validity: repo.DefaultValidity()}
	if s.expires < 1 || s.expires > 365 {
		return out, fmt.Errorf("--valid %d: want 1 to 365 days", s.expires)
	}
	out.Validity.Timestamp = time.Duration(s.expires) * 24 * time.Hour
	if s.dir != "" {
		root, err := keys.Load(s.dir)
		if err != nil {
			return out, err
		}
		key, err := root.Update.Signer()
		if err != nil {
			return out, err
		}
		out.Keys = append(out.Keys, key)
	}
	t := openTokens(c)
	for _, name := range s.files {
		key, err := signer(c.Context(), t, name)
		if err != nil {
			return out, err
		}
		out.Keys = append(out.Keys, key)
	}
	if len(out.Keys) == 0 {
		return out, errors.New("no key to sign with; name a trust root with --keys, or a key with --sign-with")
	}
	return out, nil
}

// root returns the root that images built with the trust root carry; nil if no
// trust root signs.
func (s *signing) root() ([]byte, error) {
	if s.dir == "" {
		return nil, nil
	}
	r, err := keys.Load(s.dir)
	if err != nil {
		return nil, err
	}
	return r.UpdateRoot()
}

// roles are the flags that say which keys a role has.
type roles struct {
	keys       []string // ROLE=FILE
	thresholds []string // ROLE=NUMBER
}

func (r *roles) addFlags(c *cobra.Command) {
	c.Flags().StringArrayVar(&r.keys, "role", nil, "let the key in a file or in a token sign for a role, as `ROLE=FILE`: root, targets, snapshot or timestamp; repeatable")
	c.Flags().StringArrayVar(&r.thresholds, "threshold", nil, "let a role need so many signatures, as `ROLE=NUMBER`; 1 if it is left out")
}

func (r *roles) parse(c *cobra.Command) (map[string]repo.RoleKeys, error) {
	t := openTokens(c)
	all := make(map[string]repo.RoleKeys)
	for _, s := range r.keys {
		role, file, ok := strings.Cut(s, "=")
		if !ok {
			return nil, fmt.Errorf("--role %q: want ROLE=FILE, such as root=alice.pub", s)
		}
		key, err := public(c.Context(), t, file)
		if err != nil {
			return nil, err
		}
		k := all[role]
		k.Keys, k.Threshold = append(k.Keys, key), 1
		all[role] = k
	}
	for _, s := range r.thresholds {
		role, number, _ := strings.Cut(s, "=")
		n, err := strconv.Atoi(number)
		k, named := all[role]
		if err != nil || !named {
			return nil, fmt.Errorf("--threshold %q: want ROLE=NUMBER, such as root=2, for a role that --role names keys for", s)
		}
		k.Threshold = n
		all[role] = k
	}
	return all, nil
}

// fill gives roles without keys the one that signs.
func fill(all map[string]repo.RoleKeys, key crypto.Signer) {
	for _, role := range repo.Roles() {
		if _, ok := all[role]; !ok {
			all[role] = repo.RoleKeys{Threshold: 1, Keys: []crypto.PublicKey{key.Public()}}
		}
	}
}
