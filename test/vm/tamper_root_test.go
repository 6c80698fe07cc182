//go:build vm

package vm_test

import (
	"io"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/incusos/incusos/internal/vm"
)

var (
	rootLabel  = regexp.MustCompile(`^root$`)
	notTheBoot = regexp.MustCompile(`it was not unlocked|did not unlock the system|not bound to a TPM`)
	unbound    = regexp.MustCompile(`not bound to a TPM`)
	poolLocked = regexp.MustCompile(`(degraded|warning): .*(pool|local).*key`)
)

// plainRoot puts something without a LUKS header where root was, as whoever hopes that
// the machine would run from it.
func plainRoot(t *testing.T, v victim) {
	m := clone(t, v.m)
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

// foreignRoot puts an encrypted partition in the place of root whose passphrase the
// attacker knows, and types it. SECURITY.md says what that gives: signed code with
// another configuration, and none of the data, whose key was on the root that is gone.
func foreignRoot(t *testing.T, v victim) {
	const passphrase = "what only the attacker knows"
	r := builtRelease(t)
	r.made = filepath.Join(r.work, "foreign")
	r.put(t, "definitions/root.conf", []byte("[Partition]\nType=root\nLabel=root\nFormat=ext4\nEncrypt=key-file\nSizeMinBytes=128M\nSizeMaxBytes=128M\n"))
	r.put(t, "key", []byte(passphrase))
	r.tool(t, "systemd-repart", "--offline=yes", "--dry-run=no", "--empty=create", "--size=auto",
		"--definitions=made/definitions", "--key-file=made/key", "made/foreign.raw")
	m := clone(t, v.m)
	copyPartition(t, filepath.Join(r.made, "foreign.raw"), m.Disk("disk"), rootLabel)

	started := start(t, m, vm.Boot{})
	expectNever(t, started, says.askKey)
	if !started.Console.Seen(unbound) {
		t.Errorf("the machine does not say that this disk is not bound to its TPM:\n%s", started.Console.Tail(30))
	}
	if err := started.Console.Type(passphrase + "\r"); err != nil {
		t.Fatal(err)
	}
	for _, says := range []*regexp.Regexp{poolLocked, says.byRecoveryKey} {
		if _, err := started.Console.Expect(t.Context(), started.Scale.Of(2*time.Minute), says); err != nil {
			t.Fatal(err)
		}
	}
	if started.Console.Seen(literally(v.key)) || started.Console.Seen(literally(passphrase)) {
		t.Error("a secret is on the console")
	}
}

// copyPartition copies the beginning of a labelled partition to the one of another disk.
func copyPartition(t *testing.T, from, to string, label *regexp.Regexp) {
	t.Helper()
	source, target := openDisk(t, from), openDisk(t, to)
	at, size := partition(t, source, label)
	start, room := partition(t, target, label)
	if size > room {
		t.Fatalf("%s has %d bytes of room for %d", to, room, size)
	}
	b := io.NewSectionReader(source, at, size)
	if _, err := io.Copy(io.NewOffsetWriter(target, start), b); err != nil {
		t.Fatal(err)
	}
}
