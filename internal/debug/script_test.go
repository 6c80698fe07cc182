package debug_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/smallstep/pkcs7"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/debug"
	"github.com/incusos/incusos/internal/keys"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

const signedScript = "#!/bin/sh\necho hello\nuname\n"

// shell is a machine with the support key of testdata, on which sh prints the
// script it gets, then fails with err.
func shell(t *testing.T, err error) (*debug.Debug, *systest.Rig) {
	t.Helper()
	rig := systest.New(t, systest.Sensible())
	if err := rig.Host.Files.WriteFile("/usr/lib/incus-os/support.crt", read(t, "support.crt"), 0o644); err != nil {
		t.Fatal(err)
	}
	rig.Programs.Model("sh", func(_ context.Context, c sys.Cmd) ([]byte, error) {
		if _, copied := io.Copy(c.Stdout, c.Stdin); copied != nil {
			return nil, copied
		}
		return nil, err
	})
	return debug.New(rig.Host), rig
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSignedScriptsRun(t *testing.T) {
	d, _ := shell(t, nil)
	for _, name := range []string{"detached.eml", "detached-text.eml", "opaque.eml", "opaque-text.eml", "cms.eml"} {
		t.Run(name, func(t *testing.T) {
			message := read(t, name)
			unix := bytes.ReplaceAll(message, []byte("\r\n"), []byte("\n"))
			for _, m := range [][]byte{message, unix, bytes.ReplaceAll(unix, []byte("\n"), []byte("\r\n"))} {
				if got, err := d.Script(t.Context(), m); err != nil || got != signedScript {
					t.Errorf("ran %q, %v; want %q", got, err, signedScript)
				}
			}
		})
	}
}

// The key that `incusos keys init` makes is one that machines accept.
func TestScriptSignedByTheTrustRootRuns(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	if err := keys.Init(dir, keys.Options{}); err != nil {
		t.Fatal(err)
	}
	root, err := keys.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	d, rig := shell(t, nil)
	if err := copyInto(rig.Host.Files, root.Support.CertFile, "/usr/lib/incus-os/support.crt"); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Script(t.Context(), sign(t, root.Support, signedScript)); err != nil || got != signedScript {
		t.Errorf("ran %q, %v; want %q", got, err, signedScript)
	}
	if _, err := d.Script(t.Context(), sign(t, &root.DB, signedScript)); err == nil {
		t.Error("ran a script that another key of the root signed")
	}
}

func copyInto(files sys.Dir, from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return files.WriteFile(to, b, 0o644)
}

// sign returns an opaque message by the key of a pair.
func sign(t *testing.T, by *keys.Pair, script string) []byte {
	t.Helper()
	pemKey, err := os.ReadFile(by.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(pemKey)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := pkcs7.NewSignedData([]byte(script))
	if err != nil {
		t.Fatal(err)
	}
	signed.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	if err := signed.AddSigner(by.Cert, key, pkcs7.SignerInfoConfig{}); err != nil {
		t.Fatal(err)
	}
	der, err := signed.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return []byte("Content-Type: application/pkcs7-mime\n\n" + base64.StdEncoding.EncodeToString(der) + "\n")
}

func TestOtherScriptsDoNot(t *testing.T) {
	detached := strings.ReplaceAll(string(read(t, "detached.eml")), "\r\n", "\n")
	tests := map[string]struct {
		message string
		want    string
	}{
		"nothing":             {"", "no S/MIME message"},
		"a bare script":       {signedScript, "no S/MIME message"},
		"another type":        {"Content-Type: text/plain\n\n" + signedScript, `of type "text/plain"`},
		"another key":         {string(read(t, "other-key.eml")), "not by the support key of this image"},
		"a changed script":    {strings.Replace(detached, "echo hello", "echo hullo", 1), "not what was signed"},
		"a line more":         {strings.Replace(detached, "uname\n", "uname\nid\n", 1), "not what was signed"},
		"no attributes":       {string(read(t, "no-attributes.eml")), "leave out -noattr"},
		"a weak digest":       {string(read(t, "sha1.eml")), "want SHA-256"},
		"a part more":         {detached + detached[strings.Index(detached, "\n------"):], "parts; want the script and its signature"},
		"a message cut short": {detached[:len(detached)-200], "parts; want the script and its signature"},
		"no signature in it":  {"Content-Type: application/pkcs7-mime\n\nAAAA\n", "no PKCS #7"},
		"a signature of none": {"Content-Type: application/pkcs7-mime\n\n!\n", "not in base64"},
	}
	d, rig := shell(t, nil)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := d.Script(t.Context(), []byte(tt.message))
			e, ok := errors.AsType[*api.Error](err)
			if !ok || e.Kind != api.Forbidden || !strings.Contains(e.Text, tt.want) {
				t.Errorf("said %v, want a refusal with %q", err, tt.want)
			}
			if ran := rig.Programs.Ran(); len(ran) > 0 {
				t.Errorf("ran %q", ran)
			}
		})
	}
}

func TestScriptThatFailsShowsWhatItPrinted(t *testing.T) {
	d, _ := shell(t, &sys.ExecError{Name: "sh", Code: 3})
	_, err := d.Script(t.Context(), read(t, "detached.eml"))
	if want := "running the script: sh exited with status 3\n" + signedScript; err == nil || err.Error() != want {
		t.Errorf("said %q, want %q", err, want)
	}
}

func TestImageWithoutSupportKeyRunsNoScripts(t *testing.T) {
	rig := systest.New(t, systest.Sensible())
	_, err := debug.New(rig.Host).Script(t.Context(), read(t, "detached.eml"))
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Kind != api.Unsupported {
		t.Errorf("said %v, want api.Unsupported", err)
	}
}
