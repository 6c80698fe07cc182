package host_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/host"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

const kernelName = "/proc/sys/kernel/hostname"

func TestNameComesFromTheOperatorOrTheHardware(t *testing.T) {
	const uuid, id = "/sys/class/dmi/id/product_uuid", "/etc/machine-id"
	tests := map[string]struct {
		chosen string
		files  map[string]string
		want   string
	}{
		"chosen":               {"node1.example.org", map[string]string{uuid: "U1\n"}, "node1.example.org"},
		"the mainboard's UUID": {"", map[string]string{uuid: "4C4C4544-0042\n"}, "4c4c4544-0042"},
		"the machine id":       {"", nil, "0123456789abcdef0123456789abcdef"},
		"nothing to go by":     {"", map[string]string{id: ""}, "incusos"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := machine(t)
			for file, content := range tt.files {
				write(t, m.Files, file, content)
			}
			h := host.New(m, func() string { return tt.chosen }, noZone)
			if err := h.Reconcile(t.Context()); err != nil {
				t.Fatal(err)
			}
			expectName(t, m.Files, tt.want)
		})
	}
}

// Each write fails once; reconciling again finishes the work, and reconciling
// once more writes nothing.
func TestReconcileConvergesAfterAnyFailure(t *testing.T) {
	const effects = 3
	for failing := range effects {
		t.Run(fmt.Sprintf("write %d fails", failing), func(t *testing.T) {
			m := machine(t)
			writes := 0
			faulty := m
			faulty.Files = m.Files.WithFault(func(string, string) error {
				if writes++; writes == failing+1 {
					return errors.New("no space")
				}
				return nil
			})
			h := host.New(faulty, func() string { return "node1" }, noZone)
			if err := h.Reconcile(t.Context()); err == nil {
				t.Fatal("Reconcile() succeeded although a write did not")
			}
			if err := h.Reconcile(t.Context()); err != nil {
				t.Fatal(err)
			}
			expectName(t, m.Files, "node1")
			before := writes
			if err := h.Reconcile(t.Context()); err != nil || writes != before {
				t.Errorf("reconciling what is right: %v, and %d writes; want none", err, writes-before)
			}
		})
	}
}

func TestEnvironment(t *testing.T) {
	m := machine(t)
	h := host.New(m, func() string { return "node1" }, noZone)
	want := api.Environment{
		Hostname:      "node1",
		MachineID:     "0123456789abcdef0123456789abcdef",
		Mode:          api.ModeRelease,
		OSName:        "IncusOS",
		OSVersion:     "202601010000",
		OSVersionNext: "202601010000",
		Uptime:        60,
	}
	expectEnvironment(t, h, want)

	write(t, m.Files, "/usr/lib/incus-os/dev-build", "")
	want.Mode = api.ModeDev
	expectEnvironment(t, h, want)
}

func TestPowerIsQueued(t *testing.T) {
	rig := systest.New(t, systest.Sensible())
	h := host.New(rig.Host, func() string { return "" }, noZone)
	if err := errors.Join(h.Reboot(t.Context()), h.Poweroff(t.Context())); err != nil {
		t.Fatal(err)
	}
	for _, unit := range []string{"reboot.target", "poweroff.target"} {
		if state, err := rig.Units.State(t.Context(), unit); err != nil || state != "active" {
			t.Errorf("%s is %q, %v; want active", unit, state, err)
		}
	}
}

func noZone() string { return "" }

func TestTimeZone(t *testing.T) {
	m := machine(t)
	zone := "Europe/Paris"
	h := host.New(m, func() string { return "node1" }, func() string { return zone })
	expect := func(want string) {
		t.Helper()
		if got, err := m.Files.Readlink("/etc/localtime"); err != nil || got != "../usr/share/zoneinfo/"+want {
			t.Errorf("local time is %q, %v; want that of %s", got, err, want)
		}
	}
	if err := h.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect("Europe/Paris")
	for _, unknown := range []string{"Europe/Atlantis", "Europe"} {
		zone = unknown
		if err := h.Reconcile(t.Context()); err == nil || !strings.Contains(err.Error(), "time.timezone: \""+unknown+"\" is no time zone") {
			t.Errorf("zone %q: %v; want it refused", unknown, err)
		}
		expect("Europe/Paris")
	}
	zone = ""
	if err := h.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect("UTC")
}

func machine(t *testing.T) sys.Host {
	t.Helper()
	m := systest.New(t, systest.Sensible()).Host
	write(t, m.Files, kernelName, "") // a file, unlike the kernel, keeps what it is not overwritten with
	return m
}

func write(t *testing.T, files sys.Dir, name, content string) {
	t.Helper()
	if err := files.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func expectName(t *testing.T, files sys.Dir, want string) {
	t.Helper()
	for _, file := range []string{"/etc/hostname", kernelName} {
		b, err := files.ReadFile(file)
		if err != nil || string(b) != want+"\n" {
			t.Errorf("%s holds %q, %v; want %q", file, b, err, want)
		}
	}
}

func expectEnvironment(t *testing.T, h *host.Host, want api.Environment) {
	t.Helper()
	got, err := h.Environment(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
}
