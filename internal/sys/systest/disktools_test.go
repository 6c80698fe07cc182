package systest_test

import (
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

// table is a script like that of an install.
const table = `label: gpt
size=32768KiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name="first"
size=16KiB, type=E7BB33FB-06CF-4E81-8273-E543B413E2E2, name="IncusOS_1_verity_sig", uuid=AAAAAAAA-0000-0000-0000-000000000001
size=1MiB, type=77FF5F63-E7B6-4633-ACF4-1565B864C0E6, name="_empty", attrs="GUID:60,63"
size=1GiB, type=8484680C-9521-48C6-9C11-B0720656F69E, name="_empty"
size=64MiB, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name="root"
size=1GiB, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name="local-data"
`

// TestModelAgreesWithSfdisk runs the same commands by the model and, where it is
// installed, by the real sfdisk on a file.
func TestModelAgreesWithSfdisk(t *testing.T) {
	m := systest.Sensible()
	m.Drives = []systest.Drive{{Name: "nvme0n1", ID: "nvme-disk", Size: 4 << 30}}
	rig := systest.New(t, m)
	systest.AddDiskTools(rig)
	model := partitions(t, rig.Host.Exec, "/dev/nvme0n1")
	disk, err := sys.Disks(rig.Host.Files)
	if err != nil || !rig.Host.Files.Exists("/dev/nvme0n1p4") || disk[0].IDs[0] != "nvme-disk" {
		t.Errorf("the new partitions are not in /dev; disks %+v, %v", disk, err)
	}

	if !slices.ContainsFunc(filepath.SplitList(os.Getenv("PATH")), func(dir string) bool {
		_, err := os.Stat(filepath.Join(dir, "sfdisk"))
		return err == nil
	}) {
		if os.Getenv("INCUSOS_TEST_ALL") != "" { // as .ci/run has it, which installs it
			t.Fatal("sfdisk is not installed")
		}
		t.Skip("sfdisk is not installed; .ci/deps installs it")
	}
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 4<<30); err != nil {
		t.Fatal(err)
	}
	if got := partitions(t, sys.Real().Exec, file); !slices.Equal(got, model) {
		t.Errorf("sfdisk:\n%+v\nmodel:\n%+v", got, model)
	}
}

// partitions makes the table on a disk, renames its first partition, removes the
// last two, and returns what is there then; ids that were not asked for differ each time.
func partitions(t *testing.T, r sys.Runner, disk string) []systest.TableEntry {
	t.Helper()
	c := sys.Command("sfdisk", "--quiet", "--wipe", "always", "--wipe-partitions", "always", disk)
	c.Stdin = strings.NewReader(table)
	_, err := r.Run(t.Context(), c)
	_, err2 := r.Run(t.Context(), sys.Command("sfdisk", "--quiet", "--part-label", disk, "1", "esp"))
	_, err3 := r.Run(t.Context(), sys.Command("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", "--delete", disk, "5", "6"))
	out, err4 := r.Run(t.Context(), sys.Command("sfdisk", "--json", disk))
	if err := cmp.Or(err, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Run(t.Context(), sys.Command("sfdisk", "--quiet", "--delete", disk, "5")); err == nil {
		t.Errorf("sfdisk deleted a partition of %s that is not there", disk)
	}
	var doc struct {
		Table struct{ Partitions []systest.TableEntry } `json:"partitiontable"`
	}
	if err := json.Unmarshal(out, &doc); err != nil {
		t.Fatal(err)
	}
	for i, p := range doc.Table.Partitions {
		doc.Table.Partitions[i].Node = ""
		if p.Name != "IncusOS_1_verity_sig" {
			doc.Table.Partitions[i].UUID = ""
		}
	}
	return doc.Table.Partitions
}
