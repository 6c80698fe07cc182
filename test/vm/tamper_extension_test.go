//go:build vm

package vm_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/smallstep/pkcs7"

	"github.com/incusos/incusos/internal/vm"
)

var (
	dataLabel       = regexp.MustCompile(`^root-[a-z0-9-]+[0-9]$|^root-[a-z0-9]+-[0-9]+$`)
	signaturesLabel = regexp.MustCompile(`^root-.*-verity-sig$`)

	withoutApplication = regexp.MustCompile(`degraded: applications: merging applications: the image of one of incus was changed, is not signed`)
)

// strangersApplication replaces the signature of the stored image of Incus by one of a
// key that the firmware does not know: nothing else of it is another.
func strangersApplication(t *testing.T, v victim) {
	image := incusImage(t)
	at, size := partition(t, image, signaturesLabel)
	text := make([]byte, size)
	if _, err := image.ReadAt(text, at); err != nil {
		t.Fatal(err)
	}
	var signed struct{ RootHash string }
	if err := json.Unmarshal(bytes.TrimRight(text, "\x00"), &signed); err != nil {
		t.Fatal(err)
	}
	spoilApplication(t, v, at, strangersSignature(t, signed.RootHash, size))
}

// changedApplication changes a byte of the stored image of Incus that is read whenever
// it is mounted: one of the superblock.
func changedApplication(t *testing.T, v victim) {
	image := incusImage(t)
	at, _ := partition(t, image, dataLabel)
	at += 1024
	b := make([]byte, 1)
	if _, err := image.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	spoilApplication(t, v, at, []byte{b[0] ^ 1})
}

// incusImage is the image that a machine stores byte by byte.
func incusImage(t *testing.T) *os.File {
	t.Helper()
	i, err := vm.FindImage(input(t, "INCUSOS_IMAGE_DIR", "image", "make image"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(i.Incus)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// spoilApplication writes into the stored image of Incus, restarts, and expects that
// Incus is not there and the machine says so. Root is encrypted: only root in the
// running machine can do this.
func spoilApplication(t *testing.T, v victim, at int64, content []byte) {
	r := start(t, clone(t, v.m), vm.Boot{})
	if _, err := r.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := clientOf(r, v.id)
	trusted(t, r, c)
	out := asRoot(t, r, c, fmt.Sprintf(`set -e
file=$(readlink -f /var/lib/extensions/incus.raw)
base64 -d >/run/content <<'END'
%s
END
dd if=/run/content of=$file bs=64k oflag=seek_bytes seek=%d conv=notrunc,fsync 2>&1
echo written
`, base64.StdEncoding.EncodeToString(content), at))
	if !regexp.MustCompile(`(?m)^written$`).MatchString(out) {
		t.Fatalf("the image was not changed:\n%s", out)
	}
	if err := c.Post(within(t, r, time.Minute), "/os/1.0/system/:reboot", nil, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Console.Expect(t.Context(), time.Minute, loading); err != nil {
		t.Fatal(err)
	}
	said, err := r.Console.Expect(t.Context(), 3*time.Minute, withoutApplication, says.ready)
	if err != nil {
		t.Fatal(err)
	}
	if said.Pattern != 0 {
		t.Errorf("the machine took the image: %s", said.Text)
	}
	t.Log(said.Text)
}

// strangersSignature is the content of a signature partition, as releases.signature
// makes it, by a key that was made for it.
func strangersSignature(t *testing.T, rootHash string, size int64) []byte {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "stranger"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := pkcs7.NewSignedData([]byte(rootHash))
	if err != nil {
		t.Fatal(err)
	}
	signed.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	if err := signed.SignWithoutAttr(cert, key, pkcs7.SignerInfoConfig{}); err != nil {
		t.Fatal(err)
	}
	signed.Detach()
	p7, err := signed.Finish()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	b, err := json.Marshal(map[string]any{"rootHash": rootHash, "certificateFingerprint": hex.EncodeToString(sum[:]), "signature": p7})
	if err != nil {
		t.Fatal(err)
	}
	return append(b, make([]byte, int(size)-len(b))...)
}

// extension is an image that nobody signed, for /usr as well as for /etc: each has a
// file by its name.
func extension(t *testing.T, name string) []byte {
	t.Helper()
	r := builtRelease(t)
	r.made = filepath.Join(r.work, name)
	for dir, release := range map[string]string{"usr/lib": "extension-release.d/extension-release." + name, "etc": "extension-release.d/extension-release." + name} {
		r.put(t, filepath.Join("tree", dir, release), []byte("ID=_any\n"))
		r.put(t, filepath.Join("tree", dir, name), []byte(name+"\n"))
	}
	r.tool(t, "mkfs.erofs", "made/image", "made/tree")
	b, err := os.ReadFile(filepath.Join(r.made, "image"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
