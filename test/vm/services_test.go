//go:build vm

package vm_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/vm"
	"github.com/incusos/incusos/test/vm/incus"
	"github.com/incusos/incusos/test/vm/iscsi"
	"github.com/incusos/incusos/test/vm/nvme"
	"github.com/incusos/incusos/test/vm/usbip"
)

// The disk that services attach: by iSCSI on two paths, which are joined to one
// device, on which Incus has a volume group.
const (
	targetName = "iqn.2026-01.org.example:disk"
	diskWWN    = 0x5000000000000a11
	joinedID   = "35000000000000a11"
	driveNQN   = "nqn.2026-01.org.example:drive"
	gateway    = "10.0.2.2"  // of QEMU's user network; it leads to this host
	guest      = "10.0.2.15" // the machine's own
)

// attached lets a machine attach a disk of this host by all services that it takes,
// has Incus use it, and expects the same after an outage and after a restart.
func attached(t *testing.T, m *vm.Machine, id vm.Identity) {
	target := &iscsi.Target{Name: targetName, WWN: diskWWN, User: "operator", Secret: "twelve-letters", Gateway: gateway}
	if err := target.Open(1<<30, 2); err != nil {
		t.Fatal(err)
	}
	drive := &nvme.Subsystem{NQN: driveNQN, Serial: "drive-1"}
	if err := drive.Open(64 << 20); err != nil {
		t.Fatal(err)
	}
	stick := &usbip.Device{BusID: "1-1", Vendor: 0x1d6b, Product: 0x0104}
	if err := stick.Open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(target.Close(), drive.Close(), stick.Close()); err != nil {
			t.Error(err)
		}
	})
	r := start(t, m, vm.Boot{})
	if _, err := r.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := san{t, r, clientOf(r, id), target, drive}
	trusted(t, r, s.c)

	s.refuses("nvme", `needs the application storage`)
	s.install("storage")
	s.attach()
	s.pool()
	s.others()
	s.holds()

	target.Cut()
	drive.Cut()
	s.holds()

	if err := s.c.Post(within(t, r, time.Minute), "/os/1.0/system/:reboot", nil, nil); err != nil {
		t.Fatal(err)
	}
	restarted(t, r, s.c, says.starting)
	s.holds()
	s.detach()
	if hosts := drive.Hosts(); len(hosts) != 1 {
		t.Errorf("the machine called itself %q, want one name", hosts)
	}
	if n := stick.Attached(); n != 2 {
		t.Errorf("the USB device was attached %d times, want once before the restart and once after it", n)
	}
}

// A san is a machine and what it attaches.
type san struct {
	t      *testing.T
	r      *vm.Running
	c      *incus.Client
	target *iscsi.Target
	drive  *nvme.Subsystem
}

func (s san) ctx() context.Context { return within(s.t, s.r, time.Minute) }

func (s san) put(service string, config any) error {
	return s.c.Do(s.ctx(), "PUT", "/os/1.0/services/"+service, map[string]any{"config": config}, nil)
}

func (s san) set(service string, config any) {
	s.t.Helper()
	began := time.Now()
	if err := s.put(service, config); err != nil {
		s.t.Fatalf("%s: %v", service, err)
	}
	s.t.Logf("%s was configured in %v", service, time.Since(began).Round(100*time.Millisecond))
}

func (s san) refuses(service, why string) {
	s.t.Helper()
	err := s.put(service, map[string]any{"enabled": true})
	if err == nil || !strings.Contains(err.Error(), why) {
		s.t.Errorf("enabling %s answers %v, want %q in it", service, err, why)
	}
}

// install adds an application that the medium carried.
func (s san) install(name string) {
	s.t.Helper()
	ctx := s.ctx()
	if err := s.c.Post(ctx, "/os/1.0/applications", map[string]any{"name": name}, nil); err != nil {
		s.t.Fatal(err)
	}
	var app api.Application
	if err := retry(ctx, func() error { return s.c.Get(ctx, "/os/1.0/applications/"+name, &app) }); err != nil {
		s.t.Fatal(err)
	}
	// It is merged when it is listed; what it brings is known a little later.
	idle := func() error {
		var tasks []api.Task
		if err := s.c.Get(ctx, "/os/1.0/tasks", &tasks); err != nil {
			return err
		}
		if n := slices.IndexFunc(tasks, func(t api.Task) bool { return t.Ended == nil }); n >= 0 {
			return fmt.Errorf("%s is not done", tasks[n].Description)
		}
		return nil
	}
	if err := retry(ctx, idle); err != nil {
		s.t.Fatal(err)
	}
}

func (s san) attach() {
	s.t.Helper()
	var paths []map[string]any
	for _, port := range s.target.Ports() {
		paths = append(paths, map[string]any{"target": targetName, "address": gateway, "port": port, "username": "operator", "password": "twelve-letters"})
	}
	s.set("iscsi", map[string]any{"enabled": true, "targets": paths})
	// The disk appears when the kernel has asked it what it is.
	joined := map[string]any{"enabled": true, "wwns": []string{fmt.Sprintf("0x%x", diskWWN)}}
	ctx := s.ctx()
	if err := retry(ctx, func() error { return s.put("multipath", joined) }); err != nil {
		s.t.Fatal(err)
	}
	s.set("lvm", map[string]any{"enabled": true, "system_id": 1})
}

// pool has Incus make a pool that it could share, since this service is for such
// ones, and a volume with a file system.
func (s san) pool() {
	s.t.Helper()
	ctx := s.ctx()
	err := s.c.Post(ctx, "/1.0/storage-pools", map[string]any{
		"name": "san", "driver": "lvmcluster", "config": map[string]string{"source": "/dev/mapper/" + joinedID},
	}, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	err = s.c.Post(ctx, "/1.0/storage-pools/san/volumes/custom", map[string]any{"name": "v1", "config": map[string]string{"size": "64MiB"}}, nil)
	if err != nil {
		s.t.Fatal(err)
	}
}

// others are the services that Incus has no use for here. Of OVN there is no other
// side, so that it starts is all that can be seen.
func (s san) others() {
	s.t.Helper()
	at := func(port int) any {
		return map[string]any{"enabled": true, "targets": []any{map[string]any{"transport": "tcp", "address": gateway, "port": port, "nqn": driveNQN}}}
	}
	if err := s.put("nvme", at(1)); err == nil || !strings.Contains(err.Error(), "connecting to "+driveNQN) {
		s.t.Errorf("connecting to nobody answers %v", err)
	}
	s.set("nvme", at(s.drive.Port()))
	usb := func(busID string) any {
		return map[string]any{"enabled": true, "targets": []any{map[string]any{"address": gateway, "bus_id": busID}}}
	}
	if err := s.put("usbip", usb("1-2")); err == nil || !strings.Contains(err.Error(), "attaching 1-2 of "+gateway) {
		s.t.Errorf("attaching nothing answers %v", err)
	}
	s.set("usbip", usb("1-1"))
	if slices.Contains(s.carried(), "ovn") {
		s.install("ovn")
		s.set("ovn", map[string]any{"enabled": true, "database": "tcp:" + gateway + ":6642", "tunnel_address": guest})
	}
}

// carried are the extensions that the medium had beside Incus.
func (s san) carried() []string {
	s.t.Helper()
	i, err := vm.FindImage(input(s.t, "INCUSOS_IMAGE_DIR", "image", "make image"))
	if err != nil {
		s.t.Fatal(err)
	}
	var names []string
	for name := range i.Others {
		names = append(names, name)
	}
	return names
}

// holds waits until everything is as it was attached.
func (s san) holds() {
	s.t.Helper()
	ctx := within(s.t, s.r, 2*time.Minute)
	began := time.Now()
	for what, check := range map[string]func(context.Context) error{"sessions": s.loggedIn, "paths": s.joined, "the USB device": s.plugged, "the drive": s.connected, "services": s.well, "the pool": s.used} {
		if err := retry(ctx, func() error { return check(ctx) }); err != nil {
			s.t.Fatalf("%s: %v", what, err)
		}
	}
	s.t.Logf("all is attached after %v", time.Since(began).Round(time.Second))
}

func (s san) loggedIn(ctx context.Context) error {
	var doc api.ServiceISCSI
	if err := s.c.Get(ctx, "/os/1.0/services/iscsi", &doc); err != nil {
		return err
	}
	open := 0
	for _, session := range doc.State.Sessions {
		if session.Target == targetName && session.Address == gateway && session.State == "LOGGED_IN" {
			open++
		}
	}
	if open != 2 || !strings.HasPrefix(doc.State.InitiatorName, "iqn.") {
		return fmt.Errorf("iscsi is %+v, want two sessions", doc.State)
	}
	return nil
}

func (s san) joined(ctx context.Context) error {
	var doc api.ServiceMultipath
	if err := s.c.Get(ctx, "/os/1.0/services/multipath", &doc); err != nil {
		return err
	}
	ready := 0
	for _, group := range doc.State.Devices[joinedID].PathGroups {
		for _, path := range group.Paths {
			if path.Status == "active ready running" {
				ready++
			}
		}
	}
	if ready == 2 {
		return nil
	}
	// What programs say is asked for again when the configuration is written.
	return errors.Join(fmt.Errorf("multipath is %+v, want two paths", doc.State), s.put("multipath", doc.Config))
}

func (s san) plugged(ctx context.Context) error {
	var doc api.ServiceUSBIP
	err := s.c.Get(ctx, "/os/1.0/services/usbip", &doc)
	if err == nil && (len(doc.State.Attached) != 1 || doc.State.Attached[0].BusID != "1-1") {
		err = fmt.Errorf("usbip is %+v, want one device", doc.State)
	}
	return err
}

func (s san) connected(ctx context.Context) error {
	var doc api.ServiceNVME
	if err := s.c.Get(ctx, "/os/1.0/services/nvme", &doc); err != nil {
		return err
	}
	for _, sub := range doc.State.Subsystems {
		for _, c := range sub.Controllers {
			if sub.NQN == driveNQN && c.State == "live" && len(c.Namespaces) == 1 {
				return nil
			}
		}
	}
	return fmt.Errorf("nvme is %+v, want a controller with a drive", doc.State)
}

func (s san) well(ctx context.Context) error {
	for _, name := range []string{"iscsi", "multipath", "lvm", "nvme", "usbip", "ovn"} {
		var doc struct {
			Config api.ServiceConfig
			State  api.ServiceState
		}
		if err := s.c.Get(ctx, "/os/1.0/services/"+name, &doc); err != nil {
			return err
		}
		if doc.State.Error != "" || !doc.Config.Enabled && name != "ovn" {
			return fmt.Errorf("%s is enabled: %v, and says %q", name, doc.Config.Enabled, doc.State.Error)
		}
	}
	return nil
}

// used: Incus finds its volume group, on the device and not on one of its paths.
func (s san) used(ctx context.Context) error {
	var doc api.ServiceLVM
	if err := s.c.Get(ctx, "/os/1.0/services/lvm", &doc); err != nil {
		return err
	}
	on := func(pv api.ServiceLVMPV) bool { return pv.VGName == "san" && pv.PVName == "/dev/mapper/"+joinedID }
	if !slices.ContainsFunc(doc.State.PVs, on) {
		return errors.Join(fmt.Errorf("lvm is %+v, want the volume group on the joined device", doc.State), s.put("lvm", doc.Config))
	}
	var room struct{ Space struct{ Total uint64 } }
	if err := s.c.Get(ctx, "/1.0/storage-pools/san/resources", &room); err != nil || room.Space.Total < 700<<20 /* less the leases */ {
		return fmt.Errorf("the pool has %d bytes: %w", room.Space.Total, err)
	}
	return nil
}

// detach takes everything away again, and expects nothing to be left.
func (s san) detach() {
	s.t.Helper()
	ctx := s.ctx()
	for _, path := range []string{"/1.0/storage-pools/san/volumes/custom/v1", "/1.0/storage-pools/san"} {
		if err := s.c.Do(ctx, "DELETE", path, nil, nil); err != nil {
			s.t.Fatal(err)
		}
	}
	for _, name := range []string{"lvm", "multipath", "iscsi", "usbip", "nvme"} {
		s.set(name, map[string]any{"enabled": false})
	}
	var doc api.ServiceISCSI
	if err := s.c.Get(ctx, "/os/1.0/services/iscsi", &doc); err != nil || len(doc.State.Sessions) > 0 {
		s.t.Errorf("iscsi is %+v, %v; want no session", doc.State, err)
	}
}
