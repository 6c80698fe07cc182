package backup

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/incusos/incusos/internal/sys"
)

// bothSlots is the table of an installed disk that has been updated.
const bothSlots = `label: gpt
size=524288KiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name="esp"
size=524288KiB, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name="seed-data"
size=16KiB, type=E7BB33FB-06CF-4E81-8273-E543B413E2E2, name="IncusOS_1_verity_sig"
size=16384KiB, type=77FF5F63-E7B6-4633-ACF4-1565B864C0E6, name="IncusOS_1_verity"
size=1048576KiB, type=8484680C-9521-48C6-9C11-B0720656F69E, name="IncusOS_1"
size=16KiB, type=E7BB33FB-06CF-4E81-8273-E543B413E2E2, name="IncusOS_2_verity_sig"
size=16384KiB, type=77FF5F63-E7B6-4633-ACF4-1565B864C0E6, name="IncusOS_2_verity"
size=1048576KiB, type=8484680C-9521-48C6-9C11-B0720656F69E, name="IncusOS_2"
`

// What a reset takes away, the image's definitions make anew, at the same place
// and with nothing else touched. Where the tools are installed, they show it on
// a file; encryption and file systems are left out, which need more than a file.
func TestRealToolsMakeAnewWhatAResetRemoves(t *testing.T) {
	for _, tool := range []string{"sfdisk", "systemd-repart"} {
		if !installed(tool) {
			t.Skipf("%s is not installed", tool)
		}
	}
	disk := filepath.Join(t.TempDir(), "disk")
	if err := errors.Join(os.WriteFile(disk, nil, 0o600), os.Truncate(disk, 20<<30)); err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) []byte {
		t.Helper()
		c := sys.Command(name, args...)
		c.Stdin = strings.NewReader(bothSlots)
		out, err := sys.Real().Exec.Run(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	repart := []string{"--json=short", "--definitions=" + definitions(t), "--dry-run=no", disk}
	run("sfdisk", "--quiet", disk)
	run("systemd-repart", repart...)
	before := tableOf(t, run("sfdisk", "--json", disk))
	if len(before) != 10 || before[8].Name != rootLabel || before[9].Name != localLabel {
		t.Fatalf("after the first boot: %+v", before)
	}
	host := sys.Real()
	b := New(host, options())
	gone := []sys.Partition{{Number: 9}, {Number: 10}}
	if err := b.drop(t.Context(), sys.Disk{Path: disk}, gone); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before[:8], tableOf(t, run("sfdisk", "--json", disk))); diff != "" {
		t.Errorf("after the reset (-want +got):\n%s", diff)
	}
	run("systemd-repart", repart...)
	if diff := cmp.Diff(before, tableOf(t, run("sfdisk", "--json", disk))); diff != "" {
		t.Errorf("after the next first boot (-want +got):\n%s", diff)
	}
}

func installed(tool string) bool {
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if _, err := os.Stat(filepath.Join(dir, tool)); err == nil {
			return true
		}
	}
	return false
}

// definitions returns a directory with those of the image, as far as they are
// about the table.
func definitions(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	from := os.DirFS("../../image/mkosi.extra/usr/lib/incus-os/repart.d")
	files, err := fs.Glob(from, "*.conf")
	if err != nil || len(files) != 10 {
		t.Fatalf("the image has the definitions %q, %v, want 10", files, err)
	}
	for _, file := range files {
		text, err := fs.ReadFile(from, file)
		if err != nil {
			t.Fatal(err)
		}
		var kept strings.Builder
		for line := range strings.Lines(string(text)) {
			if key, _, _ := strings.Cut(line, "="); !strings.Contains("Format Encrypt MakeDirectories GrowFileSystem", key) {
				kept.WriteString(line)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, file), []byte(kept.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// A line is a partition as sfdisk reports it.
type line struct {
	Start, Size      uint64
	Type, UUID, Name string
}

func tableOf(t *testing.T, printed []byte) []line {
	t.Helper()
	var doc struct {
		Table struct{ Partitions []line } `json:"partitiontable"`
	}
	if err := json.Unmarshal(printed, &doc); err != nil {
		t.Fatal(err)
	}
	return doc.Table.Partitions
}
