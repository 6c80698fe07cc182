package seed

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

const (
	secret  = "correct-horse-battery"
	someID  = "0123456789abcdef0123456789abcdef\n"
	otherID = "fedcba9876543210fedcba9876543210\n"
)

// seeded is what a machine was installed with.
func seeded() map[string]string {
	return map[string]string{
		"applications.yaml": "applications: [{name: incus}]\n",
		"incus.yaml":        "apply_defaults: true\n",
		"services.yaml":     "iscsi: {targets: [{target: \"iqn.2026-01.org.example:disk\", address: 192.0.2.20, username: me, password: " + secret + "}]}\n",
		"provider.json":     `{"config":{"token":"` + secret + `"}}`,
		incusImage:          strings.Repeat("image", 300),
	}
}

// device is all that the partition holds.
func device(t testing.TB, rig *systest.Rig) []byte {
	t.Helper()
	b, err := rig.Host.Files.ReadFile("/dev/vda2")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func settle(t testing.TB, rig *systest.Rig, id string) {
	t.Helper()
	if err := Settle(rig.Host.Files, id); err != nil {
		t.Fatal(err)
	}
}

func noted(t testing.TB, rig *systest.Rig) string {
	t.Helper()
	disks, err := sys.Disks(rig.Host.Files)
	if err != nil {
		t.Fatal(err)
	}
	id, err := Machine(rig.Host.Files, disks[0])
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestSettle(t *testing.T) {
	rig := renewable(t, seeded())
	before := contents(t, rig)
	if got := noted(t, rig); got != "" {
		t.Errorf("before it is set up, the disk is that of %q", got)
	}
	for range 2 { // the second time there is nothing left to do
		settle(t, rig, someID)
		if bytes.Contains(device(t, rig), []byte(secret)) {
			t.Error("the secret is still on the disk in the clear")
		}
		if diff := cmp.Diff(before, contents(t, rig)); diff != "" {
			t.Errorf("the seed (-want +got):\n%s", diff)
		}
		if got := noted(t, rig); got != "012345" {
			t.Errorf("the disk is that of %q", got)
		}
	}
	if fi, err := rig.Host.Files.Stat(keptFile); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("what is kept: %v, %v; want it for root alone", fi.Mode(), err)
	}
	once := device(t, rig)
	settle(t, rig, someID)
	if !bytes.Equal(once, device(t, rig)) {
		t.Error("it goes on writing")
	}
	settle(t, rig, otherID) // after a factory reset it is another machine
	if got := noted(t, rig); got != "fedcba" {
		t.Errorf("the disk is that of %q", got)
	}
}

// A factory reset brings the whole seed back into the archive, since root goes;
// the next start takes it out again.
func TestResetOfASettledMachine(t *testing.T) {
	rig := renewable(t, seeded())
	before := contents(t, rig)
	settle(t, rig, someID)
	write, err := Renew(rig.Host.Files, map[string]json.RawMessage{"incus": json.RawMessage(`{"apply_defaults":false}`)}, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := write(); err != nil {
		t.Fatal(err)
	}
	// The reset did not come about: the machine goes on with the seed it had.
	settle(t, rig, someID)
	if diff := cmp.Diff(before, contents(t, rig)); diff != "" || bytes.Contains(device(t, rig), []byte(secret)) {
		t.Errorf("after a reset that was cut, the seed (-want +got):\n%s", diff)
	}
	if err := write(); err != nil { // what was planned is still possible
		t.Fatal(err)
	}
	if err := rig.Host.Files.Remove(keptFile); err != nil { // and root goes
		t.Fatal(err)
	}
	want := maps.Clone(before)
	want["incus"] = `{"apply_defaults":false}`
	if diff := cmp.Diff(want, contents(t, rig)); diff != "" {
		t.Errorf("after a reset, the seed (-want +got):\n%s", diff)
	}
	settle(t, rig, otherID)
	if diff := cmp.Diff(want, contents(t, rig)); diff != "" || bytes.Contains(device(t, rig), []byte(secret)) {
		t.Errorf("set up again, the seed (-want +got):\n%s", diff)
	}
}

// Nothing is taken out before what is kept is on disk.
func TestNothingIsTakenOutThatIsNotKept(t *testing.T) {
	rig := renewable(t, seeded())
	before := device(t, rig)
	full := rig.Host.Files.WithFault(func(op, name string) error {
		if op == "write" && name == keptFile {
			return errors.New("no space left")
		}
		return nil
	})
	if err := Settle(full, someID); err == nil {
		t.Error("Settle() succeeded")
	}
	if !bytes.Equal(before, device(t, rig)) {
		t.Error("the archive was changed")
	}
}

// A disk takes the blocks of a write in any order, if at all: whatever a cut
// leaves of the sections, the seed is what was kept, and the next start goes on.
func TestCutWhileSectionsAreTakenOut(t *testing.T) {
	rig := renewable(t, seeded())
	want, old := contents(t, rig), device(t, rig)
	settle(t, rig, someID)
	done := device(t, rig)
	rapid.Check(t, func(rt *rapid.T) {
		disk := bytes.Clone(old)
		for at := 0; at < len(disk); at += 16 { // finer than a sector
			// The note is written after that was flushed.
			if block := old[at : at+16]; !bytes.Equal(block, make([]byte, 16)) && rapid.Bool().Draw(rt, "written") {
				copy(disk[at:], done[at:at+16])
			}
		}
		if err := os.WriteFile(rig.Host.Files.Path("/dev/vda2"), disk, 0o600); err != nil {
			rt.Fatal(err)
		}
		for range 2 {
			if diff := cmp.Diff(want, contents(t, rig)); diff != "" {
				rt.Fatalf("the seed (-want +got):\n%s", diff)
			}
			settle(t, rig, someID)
		}
		if bytes.Contains(device(t, rig), []byte(secret)) {
			rt.Error("the secret is still on the disk in the clear")
		}
	})
}

func TestSettleLeavesAlone(t *testing.T) {
	t.Run("a medium", func(t *testing.T) {
		m := systest.Sensible()
		m.Drives[0].Partitions = m.Drives[0].Partitions[:5] // no root
		rig := systest.New(t, m)
		if err := systest.WriteSeed(rig.Host.Files, seeded()); err != nil {
			t.Fatal(err)
		}
		settle(t, rig, someID)
		f, err := rig.Host.Files.Open("/dev/vda2")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		head := make([]byte, 16<<10)
		if _, err := f.Read(head); err != nil || !bytes.Contains(head, []byte(secret)) || rig.Host.Files.Exists(keptFile) {
			t.Errorf("the medium was changed, or its seed kept: %v", err)
		}
		if got := noted(t, rig); got != "" {
			t.Errorf("the medium is the disk of %q", got)
		}
	})
	t.Run("a disk without a seed", func(t *testing.T) {
		rig := renewable(t, nil)
		settle(t, rig, someID)
		if rig.Host.Files.Exists(keptFile) {
			t.Error("an empty seed is kept")
		}
	})
	t.Run("a machine without disks", func(t *testing.T) {
		settle(t, systest.New(t, systest.Machine{}), someID)
	})
	t.Run("a full partition", func(t *testing.T) {
		files := seeded()
		files[incusImage] = strings.Repeat("x", 64<<10-6*1024-1024)
		rig := renewable(t, files)
		settle(t, rig, someID)
		if bytes.Contains(device(t, rig), []byte(secret)) || len(device(t, rig)) != 64<<10 {
			t.Error("the secret is still there, or the partition has grown")
		}
	})
}
