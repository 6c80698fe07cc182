//go:build vm

package vm_test

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/diskfs/go-diskfs/filesystem"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/uefi"
	"github.com/incusos/incusos/internal/verity"
	"github.com/incusos/incusos/internal/vm"
	"github.com/incusos/incusos/test/vm/incus"
)

// TestWithoutSecureBoot installs a machine whose firmware knows no Secure Boot, as its
// seed allows, and lets others spoil clones of it. What is started there the TPM alone
// can tell from what is not ours.
func TestWithoutSecureBoot(t *testing.T) {
	id := newIdentity(t)
	m := newMachine(t)
	medium := newMedium(t, id, func(dir string) {
		text := "version: \"1\"\nsecurity:\n  missing_secure_boot: true\n"
		if err := os.WriteFile(filepath.Join(dir, "install.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	})
	r := start(t, m, vm.Boot{Medium: medium, NoSecureBoot: true})
	if err := r.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !r.Console.Seen(says.warned) || r.Console.Seen(says.enrolled) {
		t.Errorf("it was installed without a warning, or with keys:\n%s", r.Console.Tail(40))
	}
	if _, err := r.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !r.Console.Seen(says.untrusted) {
		t.Errorf("the console does not say that Secure Boot is off:\n%s", r.Console.Tail(40))
	}
	c := incus.New(fmt.Sprintf("https://127.0.0.1:%d", r.Port), id.TLS())
	t.Run("the API says what it lacks", func(t *testing.T) { insecure(t, r, c) })
	t.Run("root is bound to what was started", func(t *testing.T) { boundToPrograms(t, r, c) })
	if err := r.PowerOff(t.Context(), 20*time.Second); err != nil {
		t.Fatal(err)
	}

	t.Run("a second boot", func(t *testing.T) { insecureAgain(t, clone(t, m), id) })
	t.Run("another kernel image of ours does not unlock", func(t *testing.T) { anotherKernel(t, clone(t, m), vm.Boot{NoSecureBoot: true}, `PCR 4 and 11`) })
	t.Run("another command line does not unlock", func(t *testing.T) { anotherCommandLine(t, clone(t, m)) })
	t.Run("a kernel image that nobody signed is refused", func(t *testing.T) {
		spoiled := clone(t, m)
		unsign(t, openDisk(t, spoiled.Disk("disk")))
		expectNever(t, start(t, spoiled, vm.Boot{NoSecureBoot: true}), says.unsigned)
	})
}

func insecure(t *testing.T, r *vm.Running, c *incus.Client) {
	var s api.SystemSecurity
	if err := c.Get(within(t, r, 20*time.Second), "/os/1.0/system/security", &s); err != nil {
		t.Fatal(err)
	}
	if s.State.SecureBootEnabled || s.State.SystemStateIsTrusted || s.State.SystemStateStatus != "Secure Boot is disabled" || s.State.TPMStatus != api.TPMOK {
		t.Errorf("Secure Boot %v, TPM %q, trusted %v (%s)",
			s.State.SecureBootEnabled, s.State.TPMStatus, s.State.SystemStateIsTrusted, s.State.SystemStateStatus)
	}
	if v := s.State.EncryptedVolumes; len(v) != 1 || v[0].State != "unlocked (TPM)" {
		t.Errorf("encrypted volumes are %+v, want root unlocked by the TPM", v)
	}
}

// boundToPrograms expects one binding, to this kernel image, and every prediction to be
// what was measured.
func boundToPrograms(t *testing.T, r *vm.Running, c *incus.Client) {
	doctorIsContent(t, r, c)
	var d api.SecureBootDoctor
	if err := c.Get(within(t, r, time.Minute), "/os/1.0/debug/secureboot/doctor", &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Bindings) != 1 || !d.Bindings[0].Image || d.Kernels[0].PCR4 != d.PCRs[0].Measured {
		t.Errorf("bindings %+v, PCR 4 of the kernel image %q, of the machine %+v", d.Bindings, d.Kernels[0].PCR4, d.PCRs)
	}
	for _, e := range d.Events {
		t.Logf("PCR %d %s %s %s", e.PCR, e.Type, e.About, e.Measured)
	}
}

func insecureAgain(t *testing.T, m *vm.Machine, id vm.Identity) {
	r := start(t, m, vm.Boot{NoSecureBoot: true})
	if _, err := r.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := incus.New(fmt.Sprintf("https://127.0.0.1:%d", r.Port), id.TLS())
	insecure(t, r, c)
	boundToPrograms(t, r, c)
}

// anotherKernel puts a newer kernel image on the boot partition, signed by us and for the
// /usr that is there, which no update has brought.
func anotherKernel(t *testing.T, m *vm.Machine, b vm.Boot, why string) {
	releases := newReleases(t)
	const version = "209901010000"
	releases.made = filepath.Join(releases.work, version)
	releases.kernel(t, version, usrRoot(t, releases.build.UKI), change{options: "another=1"})
	content, err := os.ReadFile(filepath.Join(releases.made, "IncusOS_"+version+".efi"))
	if err != nil {
		t.Fatal(err)
	}
	putOnESP(t, m, map[string][]byte{"EFI/Linux/IncusOS_" + version + ".efi": content})
	locked(t, m, b, why)
}

// anotherCommandLine has the boot loader give the kernel image that is there another
// command line, which systemd-stub takes without Secure Boot.
func anotherCommandLine(t *testing.T, m *vm.Machine) {
	_, image := kernelImage(t, openDisk(t, m.Disk("disk")))
	p, err := uefi.OpenProgram(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	line, err := p.Text(".cmdline", 4096)
	if err != nil {
		t.Fatal(err)
	}
	var name string
	onESP(t, m, func(fs filesystem.FileSystem) { name = kernelName(t, fs) })
	putOnESP(t, m, map[string][]byte{
		"loader/entries/evil.conf": fmt.Appendf(nil, "title evil\nefi /%s\noptions %s evil=1\n", name, bytes.Trim(line, "\x00\n ")),
		"loader/loader.conf":       []byte("timeout 0\neditor no\ndefault evil.conf\n"),
	})
	locked(t, m, vm.Boot{NoSecureBoot: true}, `PCR 12 and 13`)
}

// locked expects the TPM to keep the key back, for what was started.
func locked(t *testing.T, m *vm.Machine, b vm.Boot, why string) {
	t.Helper()
	r := start(t, m, b)
	expectNever(t, r, says.askKey)
	if !r.Console.Seen(regexp.MustCompile(why)) {
		t.Errorf("the machine does not say why:\n%s", r.Console.Tail(30))
	}
}

// putOnESP writes files to the boot partition of a machine that is switched off.
func putOnESP(t *testing.T, m *vm.Machine, files map[string][]byte) {
	t.Helper()
	onESP(t, m, func(fs filesystem.FileSystem) {
		for name, content := range files {
			if err := fs.Mkdir(path.Dir(name)); err != nil {
				t.Fatal(err)
			}
			put(t, fs, name, content)
		}
	})
}

// usrRoot returns the root hash of /usr in the command line of a kernel image.
func usrRoot(t *testing.T, uki string) verity.Digest {
	t.Helper()
	b, err := os.ReadFile(uki)
	if err != nil {
		t.Fatal(err)
	}
	p, err := uefi.OpenProgram(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	line, err := p.Text(".cmdline", 4096)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range strings.Fields(strings.Trim(string(line), "\x00")) {
		if hash, ok := strings.CutPrefix(word, "usrhash="); ok {
			root, err := verity.ParseDigest(hash)
			if err != nil {
				t.Fatal(err)
			}
			return root
		}
	}
	t.Fatalf("%s has no usrhash in its command line", uki)
	return verity.Digest{}
}
