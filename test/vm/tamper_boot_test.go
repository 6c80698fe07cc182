//go:build vm

package vm_test

import (
	"bytes"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs"
	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem"

	"github.com/incusos/incusos/internal/uefi"
	"github.com/incusos/incusos/internal/vm"
)

var (
	treeLabel      = regexp.MustCompile(`^IncusOS_[0-9]{12}_verity$`)
	signatureLabel = regexp.MustCompile(`^IncusOS_[0-9]{12}_verity_sig$`)

	olderRelease = regexp.MustCompile(`such as an older release \(PCR 11\)`)
)

const (
	linuxDir  = "EFI/Linux"
	longAgo   = "202001010000" // a version below that of any image
	farFuture = "209912312359" // and one above
)

// changedLoader changes one bit in each copy of systemd-boot.
func changedLoader(t *testing.T, v victim) {
	m := clone(t, v.m)
	disk := openDisk(t, m.Disk("disk"))
	start, size := partition(t, disk, espLabel)
	copies := find(t, disk, start, size, []byte("#### LoaderInfo: systemd-boot"))
	if len(copies) == 0 {
		t.Fatal("there is no systemd-boot on the ESP")
	}
	for _, at := range copies {
		flipBit(t, disk, at)
	}
	neverStarted(t, m)
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
func changedSection(t *testing.T, v victim, section string) {
	m := clone(t, v.m)
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

func changedTree(t *testing.T, v victim) {
	m := clone(t, v.m)
	disk := openDisk(t, m.Disk("disk"))
	at, size := partition(t, disk, treeLabel)
	for offset := int64(4096); offset < size; offset += 4096 {
		flipBit(t, disk, at+offset) // in every block: which ones are read is the kernel's to say
	}
	expectNever(t, start(t, m, vm.Boot{}), regexp.MustCompile(says.corrupted.String()+`|metadata block \d+ is corrupted`))
}

// onESP does something to the files of a machine's boot partition.
func onESP(t *testing.T, m *vm.Machine, do func(filesystem.FileSystem)) {
	t.Helper()
	d, err := diskfs.OpenBackend(file.New(openDisk(t, m.Disk("disk")), false))
	if err != nil {
		t.Fatal(err)
	}
	fs, err := d.GetFilesystem(1)
	if err != nil {
		t.Fatal(err)
	}
	do(fs)
}

// kernelName returns the path of the one kernel image.
func kernelName(t *testing.T, fs filesystem.FileSystem) string {
	t.Helper()
	entries, err := fs.ReadDir(linuxDir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("the kernel images are %v, %v; want one", entries, err)
	}
	return path.Join(linuxDir, entries[0].Name())
}

// put writes a file, in the place of one that is there.
func put(t *testing.T, fs filesystem.FileSystem, name string, content []byte) {
	t.Helper()
	f, err := fs.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_TRUNC)
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

// unsignedBeside puts a kernel image beside ours that says it is newer, has another
// command line, and is not signed any more.
func unsignedBeside(t *testing.T, v victim) {
	r := builtRelease(t)
	image, err := os.ReadFile(r.build.UKI)
	if err != nil {
		t.Fatal(err)
	}
	image = bytes.ReplaceAll(image, []byte(r.build.Version), []byte(farFuture))
	image = bytes.Replace(image, []byte(" quiet "), []byte(" debug "), 1)
	m := clone(t, v.m)
	onESP(t, m, func(fs filesystem.FileSystem) {
		put(t, fs, linuxDir+"/IncusOS_"+farFuture+".efi", withoutSignature(t, image))
	})
	neverStarted(t, m)
}

// rolledBack puts a kernel image in the place of ours that our keys have signed, under an
// older version. No update ever brought it, so that root is not bound to it.
func rolledBack(t *testing.T, v victim) {
	r := builtRelease(t)
	r.made = filepath.Join(r.work, longAgo)
	r.kernel(t, longAgo, r.rootHash(t), change{})
	older, err := os.ReadFile(filepath.Join(r.made, "IncusOS_"+longAgo+".efi"))
	if err != nil {
		t.Fatal(err)
	}
	m := clone(t, v.m)
	onESP(t, m, func(fs filesystem.FileSystem) {
		if err := fs.Remove(kernelName(t, fs)); err != nil {
			t.Fatal(err)
		}
		put(t, fs, linuxDir+"/IncusOS_"+longAgo+".efi", older)
	})
	started := start(t, m, vm.Boot{})
	expectNever(t, started, says.askKey)
	if !started.Console.Seen(olderRelease) {
		t.Errorf("the machine does not say that this release is none that it knows:\n%s", started.Console.Tail(30))
	}
}

// beside puts what systemd-stub looks for where it looks: credentials, a command line
// that nobody signed, and extensions of /usr and of /etc; and it spoils the signature of
// usr, which is no part of starting: the root hash is in the signed command line. The
// machine starts as if nothing had been.
func beside(t *testing.T, v victim) {
	evil := extension(t, "evil")
	m := clone(t, v.m)
	addOn, err := uefi.EncodeProgram([]uefi.Part{{Name: ".cmdline", Data: []byte("init=/bin/sh")}})
	if err != nil {
		t.Fatal(err)
	}
	onESP(t, m, func(fs filesystem.FileSystem) {
		own := kernelName(t, fs) + ".extra.d"
		for dir, files := range map[string]map[string][]byte{
			own: {
				"evil.addon.efi": addOn, "evil.sysext.raw": evil, "evil.confext.raw": evil, "evil.raw": evil,
				"systemd.extra-unit.x.cred":   []byte("[Service]\nExecStart=/bin/false\n"),
				"passwd.hashed-password.cred": []byte("root::"),
			},
			"loader/addons":      {"evil.addon.efi": addOn},
			"loader/credentials": {"tmpfiles.extra.cred": []byte("f /run/evil - - - - evil\n")},
			"loader/extensions":  {"evil.sysext.raw": evil, "evil.confext.raw": evil},
		} {
			if err := fs.Mkdir(dir); err != nil {
				t.Fatal(err)
			}
			for name, content := range files {
				put(t, fs, dir+"/"+name, content)
			}
		}
	})
	disk := openDisk(t, m.Disk("disk"))
	at, size := partition(t, disk, signatureLabel)
	if _, err := disk.WriteAt(make([]byte, size), at); err != nil {
		t.Fatal(err)
	}

	r := start(t, m, vm.Boot{})
	if _, err := r.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := clientOf(r, v.id)
	trusted(t, r, c)
	secure(t, r, c) // what is measured of all this goes into PCR 12 and 13, to which nothing is bound
	out := asRoot(t, r, c, `cat /proc/cmdline
ls -d /etc/evil /usr/lib/evil /run/evil 2>/dev/null
systemctl list-unit-files 'x.service' --no-legend
grep '^root:' /etc/shadow /etc/passwd
echo extensions measured: $(cat /sys/class/tpm/tpm0/pcr-sha256/13)
`)
	for _, word := range []string{"init=/bin/sh", "/evil", "x.service", "root::"} {
		if strings.Contains(out, word) {
			t.Errorf("something was taken from the boot partition: %q is in\n%s", word, out)
		}
	}
	if strings.Contains(out, strings.Repeat("0", 64)) {
		t.Errorf("systemd-stub did not find the extensions, so that this shows nothing:\n%s", out)
	}
}
