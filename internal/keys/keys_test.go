package keys_test

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/internal/keys"
	"github.com/incusos/incusos/internal/repo"
	"github.com/incusos/incusos/internal/uefi"
)

func TestInitMakesARootThatLoads(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "root")
	r := newRoot(t, dir, keys.Options{})

	if got, want := modes(t, dir), strings.Join([]string{
		"drwx------ root",
		"-rw-r--r-- KEK.auth", "-rw-r--r-- KEK.crt", "-rw------- KEK.key",
		"-rw-r--r-- PK.auth", "-rw-r--r-- PK.crt", "-rw------- PK.key",
		"-rw-r--r-- db.auth", "-rw-r--r-- db.crt", "-rw------- db.key",
		"-rw-r--r-- guid",
		"-rw-r--r-- pcr.crt", "-rw------- pcr.key",
		"-rw-r--r-- support.crt", "-rw------- support.key",
		"-rw------- update.key", "-rw-r--r-- update.pub",
	}, "\n"); got != want {
		t.Errorf("files are\n%s\nwant\n%s", got, want)
	}
	if key, err := r.Update.Signer(); err != nil || !r.Update.Public.Equal(key.Public()) {
		t.Errorf("update.pub is not the public half of update.key (%v)", err)
	}
	if g, err := uefi.ParseGUID(string(r.GUID)); err != nil || g[14] != '4' {
		t.Errorf("guid is %q (%v), want one of version 4", r.GUID, err)
	}
	for _, p := range r.Pairs() {
		t.Run(p.Name, func(t *testing.T) { checkCertificate(t, p) })
	}
}

// checkCertificate compares what the certificate of p says with the profile.
func checkCertificate(t *testing.T, p keys.Pair) {
	type profile struct {
		subject, issuer string
		years           int
		ca, constrained bool
		usage           x509.KeyUsage
		ext             string
		algorithm       x509.SignatureAlgorithm
	}
	c := p.Cert
	got := profile{
		c.Subject.String(), c.Issuer.String(), c.NotAfter.Year() - c.NotBefore.Year(),
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage, fmt.Sprint(c.ExtKeyUsage), c.SignatureAlgorithm,
	}
	want := profile{"CN=IncusOS " + p.Name, "CN=IncusOS " + p.Name, 20, false, true, x509.KeyUsageDigitalSignature, "[]", x509.SHA256WithRSA}
	if p.Name == "db" {
		want.ext = fmt.Sprint([]x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning})
	}
	if got != want {
		t.Errorf("certificate says %+v, want %+v", got, want)
	}
}

func TestFirmwareAcceptsTheUpdates(t *testing.T) {
	microsoft := newRoot(t, filepath.Join(t.TempDir(), "ms"), keys.Options{Name: "Somebody else"})
	der := filepath.Join(t.TempDir(), "db.der")
	if err := os.WriteFile(der, microsoft.DB.Cert.Raw, 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRoot(t, filepath.Join(t.TempDir(), "root"), keys.Options{
		Name:         "Own",
		MicrosoftKEK: []string{microsoft.KEK.CertFile},
		MicrosoftDB:  []string{der, microsoft.PCR.CertFile},
	})

	tests := map[string]struct {
		by      *x509.Certificate
		entries string
	}{
		"PK":  {r.PK.Cert, "own CN=Own PK"},
		"KEK": {r.PK.Cert, "own CN=Own KEK, Microsoft CN=Somebody else KEK"},
		"db":  {r.KEK.Cert, "own CN=Own db, Microsoft CN=Somebody else db, Microsoft CN=Somebody else pcr"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			u := update(t, filepath.Join(r.Dir, name+".auth"))
			v, err := uefi.SecureBootVariable(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := u.Verify(v, []*x509.Certificate{tt.by}); err != nil {
				t.Error(err)
			}
			if got := entries(t, u.Payload, r.GUID); got != tt.entries {
				t.Errorf("enrols %s, want %s", got, tt.entries)
			}
			if age := time.Since(u.Time); age < 0 || age > time.Minute {
				t.Errorf("dated %v, want now", u.Time)
			}
		})
	}
}

func TestInitRefusesAndLeavesNothingBehind(t *testing.T) {
	work := t.TempDir()
	taken := filepath.Join(work, "taken")
	if err := os.Mkdir(taken, 0o700); err != nil {
		t.Fatal(err)
	}
	text := filepath.Join(work, "text")
	if err := os.WriteFile(text, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}

	tests := map[string]struct {
		dir  string
		o    keys.Options
		want string
	}{
		"a directory that is there": {taken, keys.Options{}, fmt.Sprintf("%q is already there; name a directory that is not, since keys cannot be replaced", taken)},
		"a certificate that is not": {filepath.Join(work, "new"), keys.Options{MicrosoftDB: []string{text}}, fmt.Sprintf("%q holds no certificate; want X.509 in PEM or DER", text)},
		"a parent that is a file":   {filepath.Join(work, "text", "new"), keys.Options{}, "not a directory"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			before := modes(t, work)
			err := keys.Init(tt.dir, tt.o)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Init said %v, want %q", err, tt.want)
			}
			if after := modes(t, work); after != before {
				t.Errorf("left behind\n%s\nwant\n%s", after, before)
			}
		})
	}
}

// Roots that were made before there was a support key are as good as ever, and
// whoever wants no scripts on machines takes it out.
func TestRootWithoutSupportKeyLoads(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "root")
	if r := newRoot(t, dir, keys.Options{}); r.Support == nil || len(r.Pairs()) != 5 {
		t.Fatalf("a new root has pairs %v", r.Pairs())
	}
	if err := removeAll(dir, "support.key", "support.crt"); err != nil {
		t.Fatal(err)
	}
	r, err := keys.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if r.Support != nil || len(r.Pairs()) != 4 {
		t.Errorf("a root without it has pairs %v", r.Pairs())
	}
}

func TestLoadNamesWhatIsWrong(t *testing.T) {
	good := filepath.Join(t.TempDir(), "good")
	newRoot(t, good, keys.Options{})

	tests := map[string]struct {
		spoil func(dir string) error
		want  string // DIR stands for the quoted directory
	}{
		"two files gone": {
			func(dir string) error { return removeAll(dir, "KEK.crt", "update.pub") },
			`"DIR" lacks KEK.crt, update.pub`,
		},
		"half a support key": {
			func(dir string) error { return removeAll(dir, "support.crt") },
			`"DIR" lacks support.crt`,
		},
		"a key for all to read": {
			func(dir string) error { return os.Chmod(filepath.Join(dir, "db.key"), 0o644) },
			`"DIR/db.key" has mode 0644, which lets others in; want 0600`,
		},
		"a directory for all to write": {
			func(dir string) error { return os.Chmod(dir, 0o777) },
			`"DIR" has mode 0777, which lets others in; want 0700`,
		},
		"keys that were swapped": {
			func(dir string) error { return copyFile(dir, "KEK.key", "PK.key") },
			`"DIR/PK.crt" is not for the key in "DIR/PK.key"`,
		},
		"a key of another kind": {
			func(dir string) error { return copyFile(dir, "PK.key", "update.key") },
			`"DIR/update.key" holds a key of type *rsa.PrivateKey; want ed25519.PrivateKey`,
		},
		"a key that is no key": {
			func(dir string) error { return copyFile(dir, "PK.crt", "PK.key") },
			`"DIR/PK.key" holds no PEM block "PRIVATE KEY"`,
		},
		"a public key of another kind": {
			func(dir string) error { return copyFile(dir, "PK.crt", "update.pub") },
			`"DIR/update.pub" holds no PEM block "PUBLIC KEY"`,
		},
		"no GUID": {
			func(dir string) error { return os.WriteFile(filepath.Join(dir, "guid"), []byte("1234\n"), 0o600) },
			`"DIR/guid": "1234" is no GUID; want hexadecimal digits in groups of 8-4-4-4-12`,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := copyRoot(t, good)
			if err := tt.spoil(dir); err != nil {
				t.Fatal(err)
			}
			_, err := keys.Load(dir)
			if want := strings.ReplaceAll(tt.want, "DIR", dir); err == nil || err.Error() != want {
				t.Errorf("Load said %v, want %s", err, want)
			}
		})
	}
}

func newRoot(t *testing.T, dir string, o keys.Options) *keys.Root {
	t.Helper()
	if err := keys.Init(dir, o); err != nil {
		t.Fatal(err)
	}
	r, err := keys.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// modes lists the tree at dir, one "mode name" a line.
func modes(t *testing.T, dir string) string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		lines = append(lines, info.Mode().String()+" "+e.Name())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

func update(t *testing.T, file string) uefi.SignedUpdate {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	u, err := uefi.ParseUpdate(b)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// entries names the owner and the subject of each certificate in payload.
func entries(t *testing.T, payload []byte, own uefi.GUID) string {
	t.Helper()
	lists, err := uefi.ParseSignatureLists(payload)
	if err != nil {
		t.Fatal(err)
	}
	owners := map[uefi.GUID]string{own: "own", uefi.MicrosoftOwner: "Microsoft"}
	var all []string
	for i, c := range uefi.Certificates("", lists) {
		all = append(all, owners[lists[i].Signatures[0].Owner]+" "+c.Subject)
	}
	return strings.Join(all, ", ")
}

func copyRoot(t *testing.T, from string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if err := copyTo(filepath.Join(from, f.Name()), filepath.Join(dir, f.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func copyFile(dir, from, to string) error {
	return copyTo(filepath.Join(dir, from), filepath.Join(dir, to))
}

func copyTo(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}

func removeAll(dir string, names ...string) error {
	for _, n := range names {
		if err := os.Remove(filepath.Join(dir, n)); err != nil {
			return err
		}
	}
	return nil
}

// Images and repositories that are made with the same keys have the same root,
// whenever that is.
func TestUpdateRoot(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "root")
	r := newRoot(t, dir, keys.Options{})
	first, err := r.UpdateRoot()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := r.UpdateRoot(); err != nil || !bytes.Equal(first, again) {
		t.Errorf("the second time it is another one (%v):\n%s\n%s", err, first, again)
	}
	if _, err := repo.Begin(first); err != nil {
		t.Error(err)
	}
	id, err := repo.KeyID(r.Update.Public)
	if err != nil {
		t.Fatal(err)
	}
	version, roles, err := repo.RootVersion(first)
	if err != nil || version != 1 || len(roles) != 4 {
		t.Errorf("it has version %d and %d roles (%v), want 1 and 4", version, len(roles), err)
	}
	for role, ids := range roles {
		if len(ids) != 1 || ids[0] != id {
			t.Errorf("%q may sign %s, want the update key %s", ids, role, id)
		}
	}
	if want := `"expires":"` + r.PK.Cert.NotAfter.UTC().Format(time.RFC3339) + `"`; !bytes.Contains(first, []byte(want)) {
		t.Errorf("it does not have %s:\n%s", want, first)
	}
}
