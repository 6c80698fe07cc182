package backup

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys/systest"
)

// A bench is an installed machine, and what is to be its next seed.
type bench struct {
	*systest.Rig
	disks *systest.DiskTools
	seed  string
}

// newBench returns a bench whose partitions hold size bytes of data, and a bit.
func newBench(t *testing.T, size int) *bench {
	t.Helper()
	b := &bench{Rig: machine(t, map[string]string{"network.json": document(`{}`)})}
	b.disks = systest.AddTables(b.Rig)
	for _, p := range []string{"/dev/vda9", "/dev/vda10"} {
		if err := os.Truncate(b.Host.Files.Path(p), int64(size)+4096); err != nil {
			t.Fatal(err)
		}
		f, err := b.Host.Files.OpenDevice(p)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(bytes.Repeat([]byte("data"), size/4+1024)); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func (b *bench) options() Options {
	o := options()
	o.Seed = func(sections map[string]json.RawMessage, instead bool) (func() error, error) {
		if sections["bad"] != nil {
			return nil, api.Fieldf("seeds.bad", "there is no such section")
		}
		text, err := json.Marshal([]any{sections, instead})
		return func() error { b.seed = string(text); return nil }, err
	}
	return o
}

func (b *bench) labels() (all []string) {
	for _, p := range b.disks.Table("vda") {
		all = append(all, p.Name)
	}
	return all
}

const freshLabels = "esp seed-data IncusOS_202601010000_verity_sig IncusOS_202601010000_verity IncusOS_202601010000 _empty _empty _empty"

func TestFactoryReset(t *testing.T) {
	b := newBench(t, 40<<20)
	err := New(b.Host, b.options()).FactoryReset(t.Context(), api.SystemReset{
		AllowTPMResetFailure: true, WipeExistingSeeds: true,
		Seeds: map[string]json.RawMessage{"incus": json.RawMessage(`{}`)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := `[{"incus":{}},true]`; b.seed != want {
		t.Errorf("the seed is %s, want %s", b.seed, want)
	}
	if got := strings.Join(b.labels(), " "); got != freshLabels {
		t.Errorf("the disk has %q, want %q", got, freshLabels)
	}
	const mib = 1 << 20
	checkErased(t, b, "/dev/vda9", []int{0, 16*mib - 1}, []int{16 * mib, 40*mib + 4095})
	checkErased(t, b, "/dev/vda10", []int{0, mib/2 - 1, 40*mib - mib/2, 40*mib + 4095}, []int{mib / 2, 40*mib - mib/2 - 1})
	if err := New(b.Host, b.options()).FactoryReset(t.Context(), api.SystemReset{}); err == nil || !strings.Contains(err.Error(), "0 disks hold a system") {
		t.Errorf("a second one: %v, want a refusal", err)
	}
}

// checkErased asserts that some bytes of a device are zeros and others are not.
func checkErased(t *testing.T, b *bench, device string, gone, there []int) {
	t.Helper()
	content, err := b.Host.Files.ReadFile(device)
	if err != nil || len(content) != 40<<20+4096 {
		t.Fatalf("%s: %d bytes, %v", device, len(content), err)
	}
	for _, at := range gone {
		if content[at] != 0 {
			t.Errorf("%s: byte %d is still there", device, at)
		}
	}
	for _, at := range there {
		if content[at] == 0 {
			t.Errorf("%s: byte %d is in use, and was erased", device, at)
		}
	}
}

func TestFactoryResetRefuses(t *testing.T) {
	tests := map[string]struct {
		reset   api.SystemReset
		prepare func(*bench) error
		want    string
	}{
		"a section that is none": {api.SystemReset{Seeds: map[string]json.RawMessage{"bad": json.RawMessage(`{}`)}}, nil, "seeds.bad: there is no such section"},
		"a section of nothing":   {api.SystemReset{Seeds: map[string]json.RawMessage{"incus": json.RawMessage(`null`)}}, nil, "seeds.incus: is no object"},
		"a disk nobody knows": {api.SystemReset{}, func(b *bench) error { return b.Host.Files.RemoveAll("/sys/block") },
			"cannot tell which disk to reset: the boot loader did not say which it started from, and 0 disks hold a system"},
		"a table that stays": {api.SystemReset{}, func(b *bench) error { b.Programs.Fail("sfdisk", errors.New("no")); return nil }, "removing the partitions of the system: no"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, 1<<20)
			if tt.prepare != nil {
				if err := tt.prepare(b); err != nil {
					t.Fatal(err)
				}
			}
			err := New(b.Host, b.options()).FactoryReset(t.Context(), tt.reset)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("FactoryReset() = %v, want %q", err, tt.want)
			}
			content, err := b.Host.Files.ReadFile("/dev/vda9")
			if err != nil || content[0] == 0 {
				t.Errorf("root was erased (%v)", err)
			}
		})
	}
}

// Whatever is cut, the machine is the old one or one that starts afresh, with
// the seed it was given.
func TestResetThatIsCutHappensOrNot(t *testing.T) {
	seen := make(map[bool]int)
	for _, late := range []bool{false, true} {
		for at := 1; ; at++ {
			b := newBench(t, 1<<20)
			c := &systest.Cutter{At: at, Power: true, Late: late}
			err := New(c.Host(b.Host), b.options()).FactoryReset(t.Context(), api.SystemReset{})
			if c.Over() {
				break
			}
			labels := b.labels()
			fresh := strings.Join(labels, " ") == freshLabels
			seen[fresh]++
			old := slices.Contains(labels, "root") && slices.Contains(labels, "local-data")
			if !fresh && !old || fresh && b.seed == "" || old && err == nil {
				t.Errorf("cut at effect %d: %v, the disk has %q, the seed is %q", at, err, labels, b.seed)
			}
			content, err := b.Host.Files.ReadFile("/dev/vda9")
			if err != nil || old && content[0] == 0 {
				t.Errorf("cut at effect %d: root was erased (%v) and is still in the table", at, err)
			}
		}
	}
	if seen[true] == 0 || seen[false] == 0 {
		t.Errorf("resets that happened and did not: %v, want both", seen)
	}
}
