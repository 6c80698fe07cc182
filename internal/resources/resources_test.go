package resources_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/incusos/incusos/internal/resources"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden reads machines from testdata/*.tree: a file on each line, with its
// content after " = ", or a symlink with its target after " -> ".
func TestGolden(t *testing.T) {
	trees, err := filepath.Glob("testdata/*.tree")
	if err != nil || len(trees) == 0 {
		t.Fatalf("no trees: %v", err)
	}
	for _, name := range trees {
		t.Run(filepath.Base(name), func(t *testing.T) {
			got, err := json.MarshalIndent(resources.Read(grow(t, name)), "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden := strings.TrimSuffix(name, ".tree") + ".json"
			if *update {
				if err := os.WriteFile(golden, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)+"\n"); diff != "" {
				t.Errorf("with -update it becomes (-want +got):\n%s", diff)
			}
		})
	}
}

// grow makes a tree.
func grow(t *testing.T, list string) sys.Dir {
	t.Helper()
	b, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	files := sys.NewDir(t.TempDir())
	unescape := strings.NewReplacer(`\n`, "\n", `\t`, "\t")
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSuffix(line, "\n")
		if name, target, ok := strings.Cut(line, " -> "); ok {
			if err := os.MkdirAll(filepath.Dir(files.Path(name)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(target, files.Path(name)); err != nil {
				t.Fatal(err)
			}
		} else if name, content, ok := strings.Cut(line, " = "); ok {
			if err := os.MkdirAll(filepath.Dir(files.Path(name)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(files.Path(name), []byte(unescape.Replace(content)+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return files
}

// Clients iterate over lists, and would fail on null.
func TestNoListIsNull(t *testing.T) {
	for name, files := range map[string]sys.Dir{
		"nothing at all": sys.NewDir(t.TempDir()), "a pretend machine": systest.New(t, systest.Sensible()).Host.Files,
	} {
		got, err := json.Marshal(resources.Read(files))
		if err != nil || strings.Contains(string(got), "null") {
			t.Errorf("%s: %s, %v; want no null", name, got, err)
		}
	}
}

func TestAPretendMachineIsSensible(t *testing.T) {
	r := resources.Read(systest.New(t, systest.Sensible()).Host.Files)
	type facts struct {
		Arch, CPU                string
		Threads, Cores           int
		Memory                   uint64
		Nodes, Disks, Partitions int
		Disk, Drive, Card        string
		Type                     string
	}
	got := facts{r.CPU.Architecture, "", int(r.CPU.Total), 0, r.Memory.Total, len(r.Memory.Nodes), len(r.Storage.Disks), 0, "", "", "", r.System.Type}
	if len(r.CPU.Sockets) == 1 {
		got.CPU, got.Cores = r.CPU.Sockets[0].Name, len(r.CPU.Sockets[0].Cores)
	}
	if len(r.Storage.Disks) == 1 {
		d := r.Storage.Disks[0]
		got.Partitions, got.Disk, got.Drive = len(d.Partitions), d.ID, d.DeviceID
	}
	if len(r.Network.Cards) == 1 && len(r.Network.Cards[0].Ports) == 1 {
		got.Card = r.Network.Cards[0].Ports[0].ID + " " + r.Network.Cards[0].Ports[0].Address
	}
	want := facts{"x86_64", "Pretend CPU", 2, 2, 4 << 30, 1, 1, 10, "vda", "virtio-pretend0", "enp1s0 02:00:00:00:00:01", "virtual-machine"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// The shape is Incus': the keys it has and we do not are those that it leaves
// out of an answer itself.
func TestKeysOfIncus(t *testing.T) {
	got, err := json.Marshal(resources.Read(systest.New(t, systest.Sensible()).Host.Files))
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]map[string]json.RawMessage
	if err := json.Unmarshal(got, &doc); err != nil {
		t.Fatal(err)
	}
	for key, inner := range map[string]string{
		"cpu": "architecture sockets total", "memory": "nodes hugepages_total hugepages_used hugepages_size used total",
		"gpu": "cards total", "network": "cards total", "storage": "disks total", "usb": "devices total", "pci": "devices total",
		"system": "uuid vendor product family version sku serial type firmware chassis motherboard",
		"load":   "Average1Min Average5Min Average10Min Processes", "serial": "devices total",
	} {
		for _, name := range strings.Fields(inner) {
			if doc[key][name] == nil {
				t.Errorf("%s.%s is missing", key, name)
			}
		}
		if len(doc[key]) != len(strings.Fields(inner)) {
			t.Errorf("%s has other keys than %s", key, inner)
		}
	}
}
