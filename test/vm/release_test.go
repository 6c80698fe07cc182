//go:build vm

package vm_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/internal/publish"
	"github.com/incusos/incusos/internal/uefi"
	"github.com/incusos/incusos/internal/verity"
)

// releases is a repository, at first without any release, and a server of it. Its
// releases are the built image under another version, with as much changed as a
// scenario wants: a whole build for each would take minutes.
type releases struct {
	*updates
	work, incusos, keys, tools string
	image                      string        // directory of the built image
	build                      publish.Build // what is in it
	usr                        []byte        // its file system
	newest                     time.Time     // version of the newest release, or of the image
	made                       string        // directory of that release
}

// A change is what a release has that the built image has not.
type change struct {
	options string    // added to the kernel's command line
	usr     [2]string // a text in /usr, once, and another of its length
}

const versionFormat = "200601021504"

// newReleases returns the repository.
func newReleases(t *testing.T) *releases {
	t.Helper()
	r := builtRelease(t)
	r.updates = &updates{built: r.build.Version, dir: filepath.Join(r.work, "updates"), sent: new(counter)}
	r.incusos = filepath.Join(r.work, "incusos")
	run(t, "../..", "go", "build", "-o", r.incusos, "./cmd/incusos")
	run(t, r.work, r.incusos, "repo", "init", "--keys", r.keys, r.dir)
	r.root = run(t, r.work, r.incusos, "repo", "root", r.dir)
	r.serve(t)
	return r
}

// builtRelease returns what releases are made from, without a repository to publish
// them in.
func builtRelease(t *testing.T) *releases {
	t.Helper()
	built := input(t, "INCUSOS_IMAGE_DIR", "image", "make image")
	build, err := publish.FindBuild(built)
	if err != nil {
		t.Fatal(err)
	}
	at, err := time.Parse(versionFormat, build.Version)
	if err != nil {
		t.Fatal(err)
	}
	usr, err := os.ReadFile(build.Usr)
	if err != nil {
		t.Fatal(err)
	}
	return &releases{
		work: scratch(t), keys: input(t, "INCUSOS_KEYS", "keys", "make keys"), tools: options(t).Tools,
		image: built, build: build, usr: usr, newest: at,
	}
}

// release publishes the next version.
func (r *releases) release(t *testing.T, c change) string {
	t.Helper()
	r.next = r.publish(t, c)
	return r.next
}

// applications publishes some applications under the next version, and no system.
func (r *releases) applications(t *testing.T, names string) string {
	t.Helper()
	return r.publish(t, change{}, "--applications", names)
}

// publish publishes what there is of the next version, or what flags say of it.
func (r *releases) publish(t *testing.T, c change, flags ...string) string {
	t.Helper()
	r.newest = r.newest.Add(time.Minute)
	version := r.newest.Format(versionFormat)
	if err := os.RemoveAll(r.made); r.made != "" && err != nil {
		t.Fatal(err)
	}
	r.made = filepath.Join(r.work, version)
	r.put(t, "version", []byte(version+"\n"))
	root := r.slot(t, version, c)
	r.kernel(t, version, root, c)
	for name, file := range r.build.Applications {
		if err := os.Link(file, filepath.Join(r.made, name+".raw")); err != nil {
			t.Fatal(err)
		}
	}
	run(t, r.work, r.incusos, append([]string{"repo", "publish", "--keys", r.keys, "--image", r.made, "--channel", "stable", r.dir}, flags...)...)
	return version
}

func (r *releases) put(t *testing.T, name string, content []byte) {
	t.Helper()
	name = filepath.Join(r.made, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// slot makes the three parts of a slot. What the file system holds of a text lies in
// it as it is, so that a text can be replaced by one of the same length: files that
// are shorter than a block are not compressed.
func (r *releases) slot(t *testing.T, version string, c change) verity.Digest {
	t.Helper()
	old := []byte("VERSION_ID=" + r.build.Version)
	usr := r.replaced(t, r.usr, old, []byte("VERSION_ID="+version))
	usr = bytes.ReplaceAll(usr, []byte(r.build.Version), []byte(version)) // the same file says it more than once
	if c.usr[0] != "" {
		usr = r.replaced(t, usr, []byte(c.usr[0]), []byte(c.usr[1]))
	}
	tree, err := verity.Build(t.Context(), r.tree(t).Superblock, bytes.NewReader(usr))
	if err != nil {
		t.Fatal(err)
	}
	base := "IncusOS_" + version + ".usr-" + strings.NewReplacer("x86_64", "x86-64", "aarch64", "arm64").Replace(r.build.Architecture)
	r.put(t, base+".it.raw", usr)
	r.put(t, base+"-verity.its.raw", tree.Bytes())
	r.put(t, base+"-verity-sig.of.raw", r.signature(t, tree.Root))
	return tree.Root
}

// replaced returns what has new in the one place of old.
func (r *releases) replaced(t *testing.T, b, old, new []byte) []byte {
	t.Helper()
	if n := bytes.Count(b, old); n != 1 || len(old) != len(new) {
		t.Fatalf("%q is in %s %d times; want once, and %q to have its length", old, r.build.Usr, n, new)
	}
	return bytes.Replace(b, old, new, 1)
}

// tree is that of the built image.
func (r *releases) tree(t *testing.T) *verity.Tree {
	t.Helper()
	f, err := os.Open(r.build.Tree)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tree, err := verity.ReadTree(f, r.rootHash(t), 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// rootHash is what the built image's /usr is verified by.
func (r *releases) rootHash(t *testing.T) verity.Digest {
	t.Helper()
	var signed struct{ RootHash string }
	b, err := os.ReadFile(r.build.Signature)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(bytes.TrimRight(b, "\x00"), &signed); err != nil {
		t.Fatal(err)
	}
	root, err := verity.ParseDigest(signed.RootHash)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// signature is the content of a signature partition (Discoverable Partitions
// Specification, "Verity Signature").
func (r *releases) signature(t *testing.T, root verity.Digest) []byte {
	t.Helper()
	r.put(t, "root", []byte(root.String()))
	p7 := r.tool(t, "openssl", "smime", "-sign", "-nocerts", "-noattr", "-binary", "-outform", "der",
		"-in", "made/root", "-inkey", "keys/db.key", "-signer", "keys/db.crt")
	text, err := os.ReadFile(filepath.Join(r.keys, "db.crt"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatal("db.crt is not PEM")
	}
	sum := sha256.Sum256(block.Bytes)
	b, err := json.Marshal(map[string]any{"rootHash": root.String(), "certificateFingerprint": hex.EncodeToString(sum[:]), "signature": p7})
	if err != nil {
		t.Fatal(err)
	}
	return append(b, make([]byte, 16<<10-len(b))...)
}

// kernel makes the UKI anew, signed as the image's is.
func (r *releases) kernel(t *testing.T, version string, root verity.Digest, c change) {
	t.Helper()
	f, err := os.Open(r.build.UKI)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	p, err := uefi.OpenProgram(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"build", "--efi-arch=" + map[string]string{"x86_64": "x64", "aarch64": "aa64"}[r.build.Architecture]}
	for name, option := range map[string]string{".linux": "linux", ".initrd": "initrd", ".ucode": "microcode", ".osrel": "os-release", ".cmdline": "cmdline", ".uname": "uname", ".pcrpkey": "pcrpkey"} {
		s, ok := p.Section(name)
		if !ok && name == ".ucode" {
			continue
		}
		if !ok {
			t.Fatalf("%s has no section %s", r.build.UKI, name)
		}
		b, err := io.ReadAll(p.Reader(s))
		if err != nil {
			t.Fatal(err)
		}
		switch name {
		case ".osrel":
			b = bytes.ReplaceAll(b, []byte(r.build.Version), []byte(version))
		case ".cmdline":
			words := strings.Fields(strings.TrimRight(string(b), "\x00"))
			words[0] = "usrhash=" + root.String()
			b = []byte(strings.Join(append(words, c.options), " "))
		case ".uname":
			args = append(args, "--uname="+string(bytes.TrimRight(b, "\x00")))
			continue
		}
		r.put(t, "parts/"+option, b)
		at := ""
		if option == "cmdline" || option == "os-release" {
			at = "@"
		}
		args = append(args, "--"+option+"="+at+"made/parts/"+option)
	}
	stubs, err := filepath.Glob(filepath.Join(r.image, "base/usr/lib/systemd/boot/efi/linux*.efi.stub"))
	if err != nil || len(stubs) != 1 {
		t.Fatalf("the stubs are %q, %v; want one", stubs, err)
	}
	stub, err := os.ReadFile(stubs[0])
	if err != nil {
		t.Fatal(err)
	}
	r.put(t, "parts/stub", stub)
	r.tool(t, "ukify", append(args, "--stub=made/parts/stub", "--pcr-banks=sha256", "--pcr-private-key=keys/pcr.key", "--phases=enter-initrd",
		"--secureboot-private-key=keys/db.key", "--secureboot-certificate=keys/db.crt", fmt.Sprintf("--output=made/IncusOS_%s.efi", version))...)
}

// tool runs a program of the tools tree, which sees the release that is made and the
// keys.
func (r *releases) tool(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	const script = `set -e
mount -t tmpfs none "$1/mnt"
mkdir "$1/mnt/made" "$1/mnt/keys"
mount --rbind "$2" "$1/mnt/made"
mount --rbind "$3" "$1/mnt/keys"
mount --rbind /dev "$1/dev"
mount --rbind /proc "$1/proc"
tools=$1
shift 3
exec chroot "$tools" sh -c 'cd /mnt && exec "$@"' sh "$@"`
	return run(t, r.work, "unshare", append([]string{"--mount", "sh", "-c", script, "sh", r.tools, r.made, r.keys, name}, args...)...)
}

// TestReleaseIsSigned needs no machine: it shows that what the scenarios publish is
// signed like the image.
func TestReleaseIsSigned(t *testing.T) {
	r := newReleases(t)
	version := r.release(t, change{options: "panic=1"})
	b, err := os.ReadFile(filepath.Join(r.made, "IncusOS_"+version+".efi"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := uefi.OpenProgram(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if by, err := p.Signers(); err != nil || len(by) != 1 {
		t.Errorf("the kernel is signed by %v, %v; want one", by, err)
	}
	line, err := p.Text(".cmdline", 4096)
	if err != nil || !bytes.HasSuffix(bytes.TrimRight(line, "\x00"), []byte(" panic=1")) {
		t.Errorf("the command line is %q, %v", line, err)
	}
	value, err := uefi.MeasureUKI(p, "enter-initrd")
	if err != nil {
		t.Fatal(err)
	}
	policies, err := uefi.SignedPolicies(p)
	if err != nil || len(policies) != 1 {
		t.Fatalf("the policies are %v, %v; want one", policies, err)
	}
	text, err := p.Text(".pcrpkey", 4096)
	if err != nil {
		t.Fatal(err)
	}
	key, err := uefi.PublicKey(text)
	if err != nil {
		t.Fatal(err)
	}
	if !policies[0].Allows(value, key) {
		t.Error("what the kernel measures is not what the policy allows")
	}
}
