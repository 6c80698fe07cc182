package service_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/change"
	"github.com/incusos/incusos/internal/service"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

const (
	open   = "iqn.2026-01.org.example:open"
	locked = "iqn.2026-01.org.example:locked"
	fast   = "nqn.2026-01.org.example:fast"
	secret = "twelve-letters"
	wwn    = "0x6000000000000001"
)

// A bench is a machine with all programs, and what they reach.
type bench struct {
	*systest.Rig
	san      *systest.SAN
	disks    *systest.Disks
	services *service.Services
}

func newBench(t *testing.T, change func(*systest.Machine)) *bench {
	t.Helper()
	m := systest.Sensible()
	m.SecureBoot, m.Drives = "absent", []systest.Drive{{Name: "sdb", ID: "wwn-" + wwn, Size: 1 << 20}}
	if change != nil {
		change(&m)
	}
	b := &bench{Rig: systest.New(t, m)}
	b.san, b.disks = systest.NewSAN(b.Rig), systest.NewDisks(b.Rig)
	b.restart(b.Host)
	return b
}

// restart is the daemon on the same machine once more.
func (b *bench) restart(host sys.Host) {
	b.services = service.New(host, service.Options{
		Gate:    change.NewGate(nil),
		Cluster: func() []string { return []string{"192.0.2.10/24", "2001:db8::10/64"} },
	})
}

// try changes a service to a configuration in JSON.
func (b *bench) try(t *testing.T, name, config string) error {
	t.Helper()
	return b.services.Try(t.Context(), name, b.decode(t, name, config), 0)
}

func (b *bench) decode(t *testing.T, name, config string) any {
	t.Helper()
	c, err := b.services.New(name)
	must(t, err)
	must(t, json.Unmarshal([]byte(config), c))
	must(t, c.(interface{ Validate() error }).Validate())
	return c
}

// get returns the document of a service in JSON.
func (b *bench) get(t *testing.T, name string) string {
	t.Helper()
	doc, err := b.services.Get(t.Context(), name)
	must(t, err)
	out, err := json.Marshal(doc)
	must(t, err)
	return string(out)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func contains(t *testing.T, what, got string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(got, w) {
			t.Errorf("%s:\n%s\nwant %q in it", what, got, w)
		}
	}
}

const (
	iscsiBoth  = `{"enabled":true,"targets":[{"target":"` + open + `","address":"192.0.2.20"},{"target":"` + locked + `","address":"192.0.2.20","username":"operator","password":"` + secret + `"}]}`
	iscsiOne   = `{"enabled":true,"targets":[{"target":"` + open + `","address":"192.0.2.20"}]}`
	nvmeOne    = `{"enabled":true,"targets":[{"transport":"tcp","address":"192.0.2.21","port":4420,"nqn":"` + fast + `"}]}`
	nvmeAll    = `{"enabled":true,"targets":[{"transport":"tcp","address":"192.0.2.21"}]}`
	multipaths = `{"enabled":true,"wwns":["` + wwn + `"]}`
	lvmOn      = `{"enabled":true,"system_id":7}`
	usbipOn    = `{"enabled":true,"targets":[{"address":"192.0.2.22","bus_id":"1-1.2"}]}`
	ovnOn      = `{"enabled":true,"database":"ssl:192.0.2.1:6642","tls_client_certificate":"-----BEGIN A","tls_client_key":"-----BEGIN B","tls_ca_certificate":"-----BEGIN C"}`
	cephOn     = `{"enabled":true,"clusters":{"ceph":{"fsid":"6f3e5b0c-33a5-4bd8-8d3a-0b6f1f0d7c11","monitors":["192.0.2.31","192.0.2.32"],"keyrings":{"incus":{"key":"QVFBPQ=="}},"client_config":{"rbd_cache":"false"}}}}`
	off        = `{"enabled":false}`
)

// changes are ways to take each service through its configurations.
var changes = map[string][]string{
	"iscsi":     {iscsiBoth, iscsiOne, off},
	"nvme":      {nvmeOne, nvmeAll, off},
	"multipath": {multipaths, `{"enabled":true}`, multipaths, off},
	"lvm":       {lvmOn, `{"enabled":true,"system_id":8}`, off},
	"usbip":     {usbipOn, `{"enabled":true}`, usbipOn, off},
	"ovn":       {ovnOn, `{"enabled":true,"database":"tcp:192.0.2.1:6642"}`, off},
	"ceph":      {cephOn, `{"enabled":true}`, off},
}

// TestConvergence fails each effect of every change once, applies again and
// expects the machine to match.
func TestConvergence(t *testing.T) {
	for name, configs := range changes {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for step := 1; ; step++ {
					if effects := converge(t, name, configs, step); step > effects {
						break
					}
				}
			})
		})
	}
}

// converge goes through the changes with one effect cut, and returns how many
// there were.
func converge(t *testing.T, name string, configs []string, step int) (effects int) {
	t.Helper()
	b := newBench(t, nil)
	looking := false
	b.restart(systest.Faulty(b.Host, func(string, string) error {
		if looking {
			return nil
		}
		if effects++; effects == step {
			return errors.New("cut")
		}
		return nil
	}))
	for _, config := range configs {
		if err := b.try(t, name, config); err != nil {
			if _, ok := errors.AsType[*change.Failure](err); !ok {
				t.Fatalf("effect %d: Try() = %v, want a change.Failure", step, err)
			}
			must(t, b.try(t, name, config))
		}
		looking = true
		p, err := b.services.Plan(t.Context(), name, b.decode(t, name, config))
		looking = false
		if err != nil || !p.Empty() {
			t.Log(b.Programs.Ran())
			t.Fatalf("after effect %d was cut and %s applied again, to do: %v\n%s", step, config, err, p)
		}
		must(t, b.services.Reconcile(t.Context()))
	}
	if b.Host.Files.Exists("/run/incus-os/service-" + name + ".json") {
		t.Fatalf("after effect %d was cut, something is left to do away with: %s", step, b.get(t, name))
	}
	return effects
}

func TestPlanChangesNothingAndSaysWhatApplyDoes(t *testing.T) {
	b := newBench(t, nil)
	host := systest.Faulty(b.Host, func(op, name string) error {
		if op == "run" && (name == "pvs" || name == "vgs") {
			return nil // they only look
		}
		return fmt.Errorf("%s %s", op, name)
	})
	b.restart(host)
	for name, configs := range changes {
		p, err := b.services.Plan(t.Context(), name, b.decode(t, name, configs[0]))
		if err != nil || p.Empty() {
			t.Errorf("%s: Plan() = %v, %v; want steps", name, p, err)
		}
		if strings.Contains(fmt.Sprint(p), secret) || strings.Contains(fmt.Sprint(p), "QVFB") {
			t.Errorf("%s: the plan tells a secret: %s", name, p)
		}
	}
}

func TestNothingRunsWhileDocumentsAreRead(t *testing.T) {
	b := newBench(t, nil)
	for name, configs := range changes {
		must(t, b.try(t, name, configs[0]))
	}
	before := len(b.Programs.Ran())
	for _, name := range api.ServiceNames() {
		b.get(t, name)
	}
	if ran := b.Programs.Ran()[before:]; len(ran) > 0 {
		t.Errorf("GET ran %q", ran)
	}
}

// TestDocumentsAreReadWhileAServiceChanges: incusd asks while it starts, and has
// no time limit.
func TestDocumentsAreReadWhileAServiceChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.san.Down("192.0.2.20", true)
		done := make(chan error)
		go func() { done <- b.try(t, "iscsi", iscsiOne) }()
		synctest.Wait() // it waits to try again
		contains(t, "iscsi", b.get(t, "iscsi"), `"enabled":false`)
		err := <-done
		if err == nil || !strings.Contains(err.Error(), "connection to 192.0.2.20") || !strings.Contains(err.Error(), "back on the saved") {
			t.Errorf("Try() = %v, want why and what became of it", err)
		}
	})
}

func TestServicesThatAreNotThere(t *testing.T) {
	b := newBench(t, func(m *systest.Machine) { m.Programs = nil })
	for name, configs := range changes {
		err := b.try(t, name, configs[0])
		if e, ok := errors.AsType[*api.Error](err); !ok || e.Kind != api.Unsupported || !strings.Contains(e.Text, "needs the application ") {
			t.Errorf("%s: enabling = %v, want Unsupported", name, err)
		}
		must(t, b.try(t, name, off))
	}
	for _, name := range []string{"linstor", "netbird", "tailscale"} {
		err := b.try(t, name, `{"enabled":true}`)
		if e, ok := errors.AsType[*api.Error](err); !ok || e.Kind != api.Unsupported || !strings.Contains(e.Text, "Debian has no package") {
			t.Errorf("%s: enabling = %v, want Unsupported", name, err)
		}
		contains(t, name, b.get(t, name), `"enabled":false`)
	}
	if err := b.try(t, "tailscale", `{"enabled":false,"auth_key":"k"}`); err != nil {
		t.Error(err)
	}
	contains(t, "tailscale", b.get(t, "tailscale"), `"auth_key":"k"`)
	must(t, b.services.Reconcile(t.Context()))
	if ran := b.Programs.Ran(); len(ran) > 0 {
		t.Errorf("services that are off ran %q", ran)
	}
	names, err := b.services.Names(t.Context())
	must(t, err)
	if slices.Contains(names, "ceph") || !slices.Contains(names, "iscsi") {
		t.Errorf("Names() = %q", names)
	}
	if _, err := b.services.Get(t.Context(), "bluetooth"); err == nil {
		t.Error("there is no service bluetooth")
	}
}

func TestOneServiceDoesNotStopTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		must(t, b.try(t, "iscsi", iscsiOne))
		must(t, b.try(t, "usbip", usbipOn))
		must(t, b.Host.Files.WriteFile("/var/lib/incus-os/service-nvme.json", []byte("{"), 0o600))
		must(t, b.san.Cut("192.0.2.20"))
		b.san.Down("192.0.2.20", true)
		must(t, b.Host.Files.RemoveAll("/run/vhci_hcd"))
		b.restart(b.Host)
		err := b.services.Reconcile(t.Context())
		if err == nil {
			t.Fatal("Reconcile() = nil")
		}
		contains(t, "Reconcile()", err.Error(), "iscsi: logging in to "+open+" at 192.0.2.20:3260: ", "; nvme: /var/lib/incus-os/service-nvme.json")
		contains(t, "usbip", b.get(t, "usbip"), `"attached":[{"port":0`)
		contains(t, "iscsi", b.get(t, "iscsi"), `"error":"logging in to`, `"enabled":true`)

		b.san.Down("192.0.2.20", false)
		_ = b.services.Reconcile(t.Context())
		contains(t, "iscsi", b.get(t, "iscsi"), `"state":{"initiator_name"`, "LOGGED_IN")
	})
}

func TestSeedIsTakenOnce(t *testing.T) {
	b := newBench(t, nil)
	must(t, b.services.Seed(map[string]any{"usbip": b.decode(t, "usbip", usbipOn)}))
	must(t, b.services.Reconcile(t.Context()))
	contains(t, "usbip", b.get(t, "usbip"), `"enabled":true`, `"attached"`)
	must(t, b.try(t, "usbip", off))
	must(t, b.services.Seed(map[string]any{"usbip": b.decode(t, "usbip", usbipOn)}))
	contains(t, "usbip", b.get(t, "usbip"), `"enabled":false`)
}

// TestStopsInReverse: a service that others rest on goes last, and comes first.
func TestStopsInReverse(t *testing.T) {
	b := newBench(t, nil)
	all := map[string]string{"iscsi": iscsiOne, "multipath": multipaths, "lvm": lvmOn}
	for _, name := range []string{"iscsi", "multipath", "lvm"} {
		must(t, b.try(t, name, all[name]))
	}
	order := func(verb string) []string {
		var units []string
		b.restart(systest.Faulty(b.Host, func(op, name string) error {
			if op == verb {
				units = append(units, name)
			}
			return nil
		}))
		must(t, b.services.Reconcile(t.Context()))
		return units
	}
	// As a restored backup does: the documents are others when the daemon starts.
	write := func(configs map[string]string) {
		for name, config := range configs {
			must(t, b.Host.Files.WriteFile("/var/lib/incus-os/service-"+name+".json", []byte(`{"schema":1,"config":`+config+`}`), 0o600))
		}
	}
	write(map[string]string{"iscsi": off, "multipath": off, "lvm": off})
	want := []string{"lvmlockd.service", "sanlock.service", "wdmd.service", "multipathd.service", "iscsid.service"}
	if got := order("stop"); !slices.Equal(got, want) {
		t.Errorf("stopped %q, want %q", got, want)
	}
	write(all)
	slices.Reverse(want)
	if got := order("start"); !slices.Equal(got, want) {
		t.Errorf("started %q, want %q", got, want)
	}
}

func TestApplicationsThatServicesNeed(t *testing.T) {
	b := newBench(t, nil)
	got := b.services.Applications(map[string]any{
		"iscsi": b.decode(t, "iscsi", iscsiOne), "nvme": b.decode(t, "nvme", nvmeOne), "ovn": b.decode(t, "ovn", off),
		"tailscale": b.decode(t, "tailscale", `{"enabled":true}`),
	})
	if !slices.Equal(got, []string{"storage"}) {
		t.Errorf("Applications() = %q, want storage alone", got)
	}
	must(t, b.try(t, "iscsi", iscsiOne))
	must(t, b.try(t, "usbip", usbipOn))
	if got := b.services.Users("storage"); !slices.Equal(got, []string{"the service iscsi", "the service usbip"}) {
		t.Errorf("Users() = %q, want those that are enabled", got)
	}
	if got := b.services.Users("ovn"); len(got) > 0 {
		t.Errorf("Users() = %q of what nobody uses", got)
	}
}
