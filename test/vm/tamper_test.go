//go:build vm

package vm_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/diskfs/go-diskfs"
	"github.com/diskfs/go-diskfs/backend/file"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/uefi"
	"github.com/incusos/incusos/internal/vm"
	"github.com/incusos/incusos/test/vm/incus"
)

// Labels, and what machines say, that only these scenarios need.
var (
	treeLabel = regexp.MustCompile(`^IncusOS_[0-9]{12}_verity$`)
	rootLabel = regexp.MustCompile(`^root$`)

	askPIN     = regexp.MustCompile(`\bincus-os: PIN:$`)
	otherTPM   = regexp.MustCompile(`belongs to another TPM`)
	notTheBoot = regexp.MustCompile(`it was not unlocked|did not unlock the system|not bound to a TPM`)
)

// TestTamperedMachine installs a machine once and does to a clone of it what somebody
// would who has the disk in hands. Each is refused, and nothing of the recovery key is
// on a console.
func TestTamperedMachine(t *testing.T) {
	id := newIdentity(t)
	m := newMachine(t)
	r, _ := installed(t, m, newMedium(t, id, nil))
	c := clientOf(r, id)
	key := recoveryKey(t, r, c)
	t.Run("the doctor says that the next start unlocks", func(t *testing.T) { doctorIsContent(t, r, c) })
	if err := r.PowerOff(t.Context(), 20*time.Second); err != nil {
		t.Fatal(err)
	}

	t.Run("a changed initrd is noticed", func(t *testing.T) { changedSection(t, clone(t, m), ".initrd") })
	t.Run("a changed kernel is noticed", func(t *testing.T) { changedSection(t, clone(t, m), ".linux") })
	t.Run("a changed hash tree is noticed", func(t *testing.T) { changedTree(t, clone(t, m)) })
	t.Run("an add-on on the boot partition changes nothing", func(t *testing.T) { addOn(t, clone(t, m)) })
	t.Run("a disk in another machine stays closed", func(t *testing.T) { movedDisk(t, clone(t, m), key) })
	t.Run("a root partition without encryption is not taken", func(t *testing.T) { plainRoot(t, clone(t, m)) })
	t.Run("guessing the recovery key takes ever longer", func(t *testing.T) { guessing(t, clone(t, m)) })
	t.Run("a PIN is asked for, and opens", func(t *testing.T) { withPIN(t, clone(t, m), id, key) })
}

func doctorIsContent(t *testing.T, r *vm.Running, c *incus.Client) {
	var d api.SecureBootDoctor
	if err := c.Get(within(t, r, time.Minute), "/os/1.0/debug/secureboot/doctor", &d); err != nil {
		t.Fatal(err)
	}
	if !d.Unlocks || len(d.Bindings) != 1 || len(d.Kernels) != 1 || !d.Kernels[0].Running {
		t.Errorf("verdict %q, bindings %+v, kernels %+v, findings %+v", d.Verdict, d.Bindings, d.Kernels, d.Findings)
	}
	for _, p := range d.PCRs {
		if p.Measured != p.Replayed || p.Measured != p.Expected {
			t.Errorf("PCR %d: measured %s, replayed %s, expected %s", p.PCR, p.Measured, p.Replayed, p.Expected)
		}
	}
}

// kernelImage returns where on the disk the UKI lies, as far as it is in one piece, and
// its bytes.
func kernelImage(t *testing.T, disk *os.File) (int64, []byte) {
	t.Helper()
	start, size := partition(t, disk, espLabel)
	for _, at := range find(t, disk, start, size, []byte("MZ")) {
		const longest = 128 << 20
		b := make([]byte, min(longest, start+size-at))
		if _, err := disk.ReadAt(b, at); err != nil {
			t.Fatal(err)
		}
		p, err := uefi.OpenProgram(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			continue
		}
		if _, ok := p.Section(".pcrsig"); ok {
			return at, b
		}
	}
	t.Fatal("there is no kernel image on the ESP")
	return 0, nil
}

// changedSection changes one bit in the middle of a section of the UKI.
func changedSection(t *testing.T, m *vm.Machine, section string) {
	disk := openDisk(t, m.Disk("disk"))
	at, image := kernelImage(t, disk)
	p, err := uefi.OpenProgram(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	s, ok := p.Section(section)
	if !ok {
		t.Fatalf("the UKI has no section %s", section)
	}
	content := make([]byte, 4096)
	if _, err := io.ReadFull(p.Reader(s), content); err != nil {
		t.Fatal(err)
	}
	offset := bytes.Index(image, content)
	if offset < 0 {
		t.Fatalf("section %s is not in one piece", section)
	}
	flipBit(t, disk, at+int64(offset)+s.Size/2)
	neverStarted(t, m)
}

func changedTree(t *testing.T, m *vm.Machine) {
	disk := openDisk(t, m.Disk("disk"))
	at, size := partition(t, disk, treeLabel)
	for offset := int64(4096); offset < size; offset += 4096 {
		flipBit(t, disk, at+offset) // in every block: which ones are read is the kernel's to say
	}
	expectNever(t, start(t, m, vm.Boot{}), regexp.MustCompile(says.corrupted.String()+`|metadata block \d+ is corrupted`))
}

// addOn puts credentials, and an add-on that nobody signed, where systemd-stub looks for
// them. The machine starts as if they were not there: credentials are not imported, and
// the add-on is refused.
func addOn(t *testing.T, m *vm.Machine) {
	disk := openDisk(t, m.Disk("disk"))
	back := file.New(disk, false)
	d, err := diskfs.OpenBackend(back)
	if err != nil {
		t.Fatal(err)
	}
	fs, err := d.GetFilesystem(1)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := fs.ReadDir("EFI/Linux")
	if err != nil || len(entries) == 0 {
		t.Fatalf("the kernel images: %v, %v", entries, err)
	}
	dir := "EFI/Linux/" + entries[0].Name() + ".extra.d"
	if err := fs.Mkdir(dir); err != nil {
		t.Fatal(err)
	}
	program, err := uefi.EncodeProgram([]uefi.Part{{Name: ".cmdline", Data: []byte("init=/bin/sh")}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"evil.addon.efi":              program,
		"systemd.extra-unit.x.cred":   []byte("[Service]\nExecStart=/bin/false\n"),
		"passwd.hashed-password.cred": []byte("root::"),
	} {
		f, err := fs.OpenFile(dir+"/"+name, os.O_CREATE|os.O_RDWR)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(content); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	r := start(t, m, vm.Boot{})
	// What is measured of credentials goes into PCR 12, to which nothing is bound.
	if _, err := r.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r.Console.Seen(regexp.MustCompile(`init=/bin/sh`)) {
		t.Error("the add-on's command line was taken")
	}
}

func movedDisk(t *testing.T, m *vm.Machine, key string) {
	if err := m.ReplaceTPM(); err != nil {
		t.Fatal(err)
	}
	r := start(t, m, vm.Boot{})
	expectNever(t, r, says.askKey)
	if !r.Console.Seen(otherTPM) {
		t.Errorf("the machine does not say that the disk is from elsewhere:\n%s", r.Console.Tail(30))
	}
	if r.Console.Seen(literally(key)) {
		t.Error("the recovery key is on the console")
	}
}

// plainRoot puts something without a LUKS header where root was, as whoever hopes that
// the machine would run from it.
func plainRoot(t *testing.T, m *vm.Machine) {
	disk := openDisk(t, m.Disk("disk"))
	at, _ := partition(t, disk, rootLabel)
	if _, err := disk.WriteAt(make([]byte, 32<<20), at); err != nil {
		t.Fatal(err)
	}
	r := start(t, m, vm.Boot{})
	expectNever(t, r, says.askKey)
	if !r.Console.Seen(notTheBoot) {
		t.Errorf("the machine does not say what is wrong:\n%s", r.Console.Tail(30))
	}
}

func guessing(t *testing.T, m *vm.Machine) {
	if err := m.ReplaceTPM(); err != nil {
		t.Fatal(err)
	}
	r := start(t, m, vm.Boot{})
	expectNever(t, r, says.askKey)
	began := r.Console.Elapsed()
	for i := range 4 {
		if err := r.Console.Type(fmt.Sprintf("guess number %d\r", i)); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Console.Expect(t.Context(), r.Scale.Of(2*time.Minute), says.askKey); err != nil {
			t.Fatal(err)
		}
	}
	if took := r.Console.Elapsed() - began; took < 7*time.Second {
		t.Errorf("four guesses took %v; want the wait to double each time", took)
	}
}

// withPIN sets a PIN over the API, restarts, and types a wrong one and the right one.
func withPIN(t *testing.T, m *vm.Machine, id vm.Identity, key string) {
	r := start(t, m, vm.Boot{})
	if _, err := r.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := clientOf(r, id)
	if err := c.Post(within(t, r, time.Minute), "/os/1.0/system/security/:set-pin", api.SecurityPIN{PIN: "314-159"}, nil); err != nil {
		t.Fatal(err)
	}
	var d api.SecureBootDoctor
	if err := c.Get(within(t, r, time.Minute), "/os/1.0/debug/secureboot/doctor", &d); err != nil || !strings.Contains(d.Verdict, "once the PIN is typed") {
		t.Errorf("the doctor says %q, %v", d.Verdict, err)
	}
	if err := r.PowerOff(t.Context(), 20*time.Second); err != nil {
		t.Fatal(err)
	}
	r = start(t, m, vm.Boot{})
	expectNever(t, r, askPIN)
	if err := r.Console.Type("000-111\r"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Console.Expect(t.Context(), r.Scale.Of(2*time.Minute), askPIN); err != nil {
		t.Fatal(err)
	}
	if err := r.Console.Type("314-159\r"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r.Console.Seen(literally("314-159")) || r.Console.Seen(literally(key)) {
		t.Error("a secret is shown on the console")
	}
	if r.Console.Seen(says.byRecoveryKey) {
		t.Error("the PIN was taken for a recovery key")
	}
}
