package token_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/internal/fetch"
	"github.com/incusos/incusos/internal/publish"
	"github.com/incusos/incusos/internal/repo"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
	"github.com/incusos/incusos/internal/token"
	"github.com/incusos/incusos/internal/verity"
)

// softHSM is the library of a token in files (Debian's softhsm2).
const softHSM = "/usr/lib/softhsm/libsofthsm2.so"

const pin = "654321"

// newTokens makes a token "updates" with ECDSA keys 01 and 02, and an Ed25519 key 03.
func newTokens(t *testing.T) *token.Tokens {
	t.Helper()
	for _, program := range []string{"softhsm2-util", "pkcs11-tool"} {
		switch _, err := exec.LookPath(program); {
		case err == nil:
		case os.Getenv("INCUSOS_TEST_ALL") != "": // as .ci/run has it, which installs them
			t.Fatal(err)
		default: // make test needs nothing installed, and no root
			t.Skipf("there is no %s here; .ci/deps installs it", program)
		}
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "softhsm2.conf")
	must(t, os.WriteFile(config, []byte("directories.tokendir = "+dir+"\n"), 0o600))
	t.Setenv("SOFTHSM2_CONF", config)
	run(t, "softhsm2-util", "--init-token", "--free", "--label", "updates", "--pin", pin, "--so-pin", "12345678")
	for id, kind := range map[string]string{"01": "EC:prime256v1", "02": "EC:prime256v1", "03": "EC:edwards25519"} {
		run(t, "pkcs11-tool", "--module", softHSM, "--token-label", "updates", "--login", "--pin", pin, "--keypairgen", "--key-type", kind, "--id", id, "--label", "key "+id)
	}
	return &token.Tokens{Exec: sys.Real().Exec, Module: softHSM, PIN: func(context.Context, string) (string, error) { return pin, nil }}
}

// Keys in a token sign a repository and what is published in it, and those who verify it
// need no token.
func TestRepositoryOfKeysInAToken(t *testing.T) {
	tokens := newTokens(t)
	with := publish.Signing{Validity: repo.DefaultValidity()}
	roles := make(map[string]repo.RoleKeys)
	for _, uri := range []string{"pkcs11:token=updates;id=%01;object=key%2001", "pkcs11:token=updates;id=%02"} {
		key, err := tokens.Signer(t.Context(), uri)
		must(t, err)
		public, err := tokens.Public(t.Context(), uri)
		must(t, err)
		if !key.Public().(*ecdsa.PublicKey).Equal(public) {
			t.Errorf("%s has two public keys", uri)
		}
		with.Keys = append(with.Keys, key)
		for _, role := range repo.Roles() {
			roles[role] = repo.RoleKeys{Threshold: len(with.Keys), Keys: append(roles[role].Keys, public)}
		}
	}
	dir := filepath.Join(t.TempDir(), "updates")
	must(t, publish.Init(dir, nil, roles, with))
	build := newBuild(t)
	must(t, publish.Change(t.Context(), dir, with, func(a *repo.Author) error {
		return publish.Publish(t.Context(), dir, a, build, publish.Terms{Channel: "stable", Percent: 100, Severity: "none"}, time.Now())
	}))
	shown, err := publish.Show(t.Context(), dir)
	must(t, err)
	from, err := fetch.Open(dir, fetch.Options{})
	must(t, err)
	count, _, err := publish.Mirror(t.Context(), t.TempDir(), publish.Mirroring{Root: shown.Root, From: from, Now: time.Now()})
	if err != nil || count == 0 {
		t.Errorf("%d files were verified (%v)", count, err)
	}
}

func newBuild(t *testing.T) publish.Build {
	t.Helper()
	const version, blocks = "202602010000", 8
	usr := make([]byte, blocks*verity.BlockSize)
	mathrand.NewChaCha8([32]byte{}).Read(usr) //nolint:errcheck // never fails
	tree, err := verity.Build(t.Context(), verity.Superblock{Blocks: blocks, Salt: []byte(version)}, bytes.NewReader(usr))
	must(t, err)
	db, err := systest.PretendSigner("db")
	must(t, err)
	kernel, err := systest.KernelImage(version, fmt.Sprintf("rw usrhash=%v", tree.Root), db)
	must(t, err)
	dir, base := t.TempDir(), "IncusOS_"+version
	for name, content := range map[string][]byte{
		"version": []byte(version + "\n"), base + ".efi": kernel, "incus.raw": []byte("pretend image of Incus\n"),
		base + ".usr-x86-64.0.raw": usr, base + ".usr-x86-64-verity.0.raw": tree.Bytes(),
		base + ".usr-x86-64-verity-sig.0.raw": fmt.Appendf(nil, `{"rootHash":"%v","signature":"YQ=="}`, tree.Root),
	} {
		must(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	b, err := publish.FindBuild(dir)
	must(t, err)
	return b
}

func TestWhatIsWrongIsSaidInOneSentence(t *testing.T) {
	tokens := newTokens(t)
	wrong, open := filepath.Join(t.TempDir(), "wrong"), filepath.Join(t.TempDir(), "open")
	must(t, errors.Join(os.WriteFile(wrong, []byte("999999\n"), 0o600), os.WriteFile(open, []byte(pin), 0o644))) //nolint:gosec // that is wrong with it
	nothing := t.TempDir()
	tests := map[string]struct{ uri, path, says string }{
		"a wrong PIN":       {"pkcs11:token=updates;id=%01?pin-source=file:" + wrong, "", `the key 01 in the token "updates", by ` + softHSM + `: the PIN of the token is wrong; a few wrong ones lock it`},
		"a PIN for all":     {"pkcs11:token=updates;id=%01?pin-source=file:" + open, "", `the PIN of the token "updates": "` + open + `" has mode 0644, which lets others in; want 0600`},
		"no PIN":            {"pkcs11:token=updates;id=%01?pin-source=file:///no/such/file", "", `the PIN of the token "updates": stat /no/such/file: no such file or directory`},
		"no such token":     {"pkcs11:token=nowhere;id=%01", "", `the key 01 in the token "nowhere", by ` + softHSM + `: there is no such token; see whether it is plugged in`},
		"no such key":       {"pkcs11:token=updates;id=%09", "", `the key 09 in the token "updates", by ` + softHSM + `: there is no public key with that id and label`},
		"another label":     {"pkcs11:token=updates;id=%01;object=other", "", `the key 01 in the token "updates", by ` + softHSM + `: there is no public key with that id and label`},
		"no such library":   {"pkcs11:token=updates;id=%01?module-path=/no/such.so", "", `the key 01 in the token "updates", by /no/such.so: there is no such library; name another one with --pkcs11-module`},
		"a key that is not": {"pkcs11:token=updates;id=%03", "", "want ECDSA with the curve P-256: pkcs11-tool hands a token no more than 1,024 bytes, and Ed25519 signs whole messages"},
		"no program":        {"pkcs11:token=updates;id=%01", nothing, `the key 01 in the token "updates": there is no pkcs11-tool on this machine; install OpenSC`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if tt.path != "" {
				t.Setenv("PATH", tt.path)
			}
			again := *tokens // it remembers PINs
			key, err := again.Signer(t.Context(), tt.uri)
			if err == nil {
				_, err = key.Sign(nil, bytes.Repeat([]byte{7}, 32), crypto.SHA256)
			}
			if err == nil || !strings.HasSuffix(err.Error(), tt.says) {
				t.Errorf("it says %v, want %s", err, tt.says)
			}
		})
	}
}

// The PIN is asked for once, and never on the command line of a program.
func TestPINIsKeptFromOthers(t *testing.T) {
	tokens := newTokens(t)
	asked, spy := 0, &spy{Runner: tokens.Exec}
	tokens.Exec = spy
	tokens.PIN = func(_ context.Context, label string) (string, error) {
		asked++
		if label != "updates" {
			t.Errorf("the PIN of %q is asked for", label)
		}
		return pin, nil
	}
	for _, uri := range []string{"pkcs11:token=updates;id=%01", "pkcs11:token=updates;id=%02"} {
		key, err := tokens.Signer(t.Context(), uri)
		must(t, err)
		for range 2 {
			_, err = key.Sign(nil, bytes.Repeat([]byte{7}, 32), crypto.SHA256)
			must(t, err)
		}
	}
	if asked != 1 {
		t.Errorf("the PIN was asked for %d times, want once", asked)
	}
	if len(spy.ran) != 6 || slices.ContainsFunc(spy.ran, func(line string) bool { return strings.Contains(line, pin) }) {
		t.Errorf("these ran: %q; want six without the PIN", spy.ran)
	}
}

type spy struct {
	sys.Runner
	ran []string
}

func (s *spy) Run(ctx context.Context, c sys.Cmd) ([]byte, error) {
	s.ran = append(s.ran, strings.Join(append([]string{c.Name}, c.Args...), " "))
	return s.Runner.Run(ctx, c)
}

func TestURIsThatAreWrong(t *testing.T) {
	for uri, says := range map[string]string{
		"file.pem": "want a URI of at most",
		"pkcs11:token=" + strings.Repeat("a", 5000): "want a URI of at most",
		"pkcs11:":                               "it names no token",
		"pkcs11:token=a":                        "it names no key; want one by its id, as id=%01",
		"pkcs11:token=a;object=b":               "it names no key",
		"pkcs11:id=%01":                         "it names no token",
		"pkcs11:token=a;id=%0":                  `the attribute "id"; want NAME=VALUE once`,
		"pkcs11:token=a;id=%01;id=%02":          `the attribute "id"; want NAME=VALUE once`,
		"pkcs11:token=;id=%01":                  `the attribute "token"; want NAME=VALUE once`,
		"pkcs11:token=a%00;id=%01":              `the attribute "token"; want NAME=VALUE once`,
		"pkcs11:token=a;id=%01;serial=1":        `the attribute "serial" is not understood`,
		"pkcs11:token=a;id=%01;type=cert":       "type=\"cert\" is no key",
		"pkcs11:token=a;id=%01?pin-value=1234":  "pin-value lets everybody see the PIN",
		"pkcs11:token=a;id=%01?pin-source=here": "want file:/PATH",
		"pkcs11:token=a;id=%01?slot=1":          `the attribute "slot" is not understood`,
		"pkcs11:token=a;id=%01":                 "no library knows the token \"a\"",
	} {
		tokens := &token.Tokens{Exec: sys.Real().Exec}
		if _, err := tokens.Public(t.Context(), uri); err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "1234") {
			t.Errorf("%.60s: it says %v, want %s", uri, err, says)
		}
	}
}

// Whatever a URI says, pkcs11-tool is asked for one key of one token.
func FuzzURI(f *testing.F) {
	f.Add("pkcs11:token=my%20token;object=ci;id=%01%02;type=private?module-path=/usr/lib/a.so&pin-source=file:///etc/pin")
	f.Add("pkcs11:id=%01?pin-source=/etc/pin&")
	f.Fuzz(func(t *testing.T, uri string) {
		s := &spy{Runner: refusing{}}
		tokens := &token.Tokens{Exec: s, Module: "/lib.so"}
		if _, err := tokens.Public(t.Context(), uri); err == nil {
			t.Fatal("a token that there is not has a key")
		}
		for _, line := range s.ran {
			if !strings.HasPrefix(line, "pkcs11-tool --module ") || strings.Count(line, " --id ") < 1 || strings.Contains(line, "\x00") {
				t.Errorf("%q ran for %q", line, uri)
			}
		}
	})
}

type refusing struct{ sys.Runner }

func (refusing) Run(context.Context, sys.Cmd) ([]byte, error) {
	return nil, &sys.ExecError{Name: "pkcs11-tool", Code: 1}
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
