package systest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/incusos/incusos/internal/sys"
)

// A SAN is what services of the system attach over the network, and the programs
// that attach it: iscsiadm, nvme and usbip, which show in sysfs what they did as
// the kernel does. There is a portal at 192.0.2.20 with the iSCSI targets
// iqn.2026-01.org.example:open and :locked (CHAP: operator, "twelve-letters"), at
// 192.0.2.21 the NVMe subsystem nqn.2026-01.org.example:fast, and at 192.0.2.22 the
// USB device 1-1.2. Everything else does not answer.
type SAN struct {
	rig     *Rig
	mu      sync.Mutex
	records map[string]string // by "TARGET PORTAL": the settings a record was made with
	serial  int               // of the last session or controller
	down    map[string]bool   // addresses that do not answer
}

const (
	iscsiPortal = "192.0.2.20:3260"
	iscsiOpen   = "iqn.2026-01.org.example:open"
	iscsiLocked = "iqn.2026-01.org.example:locked"
	iscsiSecret = "twelve-letters"
	nvmeAddress = "192.0.2.21"
	nvmeName    = "nqn.2026-01.org.example:fast"
	usbAddress  = "192.0.2.22"
	usbDevice   = "1-1.2"
)

// NewSAN adds the programs to rig.
func NewSAN(rig *Rig) *SAN {
	s := &SAN{rig: rig, records: make(map[string]string), down: make(map[string]bool)}
	rig.Programs.Model("iscsiadm", s.locked(s.iscsiadm))
	rig.Programs.Model("nvme", s.locked(s.nvme))
	rig.Programs.Model("usbip", s.locked(s.usbip))
	return s
}

func (s *SAN) locked(p Program) Program {
	return func(ctx context.Context, c sys.Cmd) ([]byte, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return p(ctx, c)
	}
}

// Down makes an address stop answering; up again ends that.
func (s *SAN) Down(address string, down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down[address] = down
}

// Cut ends an iSCSI session or an NVMe connection with everybody at an address, as
// when it was gone for too long.
func (s *SAN) Cut(address string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for name, at := range s.sessions() {
		if strings.HasSuffix(at, " "+address+":3260") {
			errs = append(errs, s.closeSession(name))
		}
	}
	for name, at := range s.controllers() {
		if at == address {
			errs = append(errs, s.closeController(name))
		}
	}
	return errors.Join(errs...)
}

func (s *SAN) fail(c sys.Cmd, code int, text string) error {
	return &sys.ExecError{Name: c.Name, Code: code, Stderr: text}
}

// option returns the argument after a flag, or the rest of one that begins with
// it.
func option(args []string, flag string) string {
	for i, a := range args {
		if rest, ok := strings.CutPrefix(a, flag+"="); ok {
			return rest
		}
		if a == flag && i+1 < len(args) {
			return args[i+1]
		}
	}
	return ""
}

func (s *SAN) read(name string) string {
	b, err := s.rig.Host.Files.ReadFile(name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func (s *SAN) entries(dir string) []string {
	all, err := s.rig.Host.Files.ReadDir(dir)
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range all {
		names = append(names, e.Name())
	}
	return names
}

func (s *SAN) write(dir string, files map[string]string) error {
	var errs []error
	for name, content := range files {
		errs = append(errs, s.rig.Host.Files.WriteFile(dir+"/"+name, []byte(content+"\n"), 0o444))
	}
	return errors.Join(errs...)
}

func (s *SAN) iscsiadm(ctx context.Context, c sys.Cmd) ([]byte, error) {
	if state, err := s.rig.Units.State(ctx, "iscsid.service"); err != nil || state != "active" {
		return nil, s.fail(c, 20, "iscsiadm: can not connect to iSCSI daemon (111)!")
	}
	portal, target := option(c.Args, "-p"), option(c.Args, "-T")
	address, _, _ := strings.Cut(portal, ":")
	switch {
	case option(c.Args, "-m") == "discovery":
		if portal != iscsiPortal || s.down[address] {
			return nil, s.fail(c, 4, "iscsiadm: cannot make connection to "+address+": Connection refused")
		}
		for _, t := range []string{iscsiOpen, iscsiLocked} {
			s.records[t+" "+portal] = s.read("/etc/iscsi/iscsid.conf")
		}
		return fmt.Appendf(nil, "%s,1 %s\n%s,1 %s\n", portal, iscsiOpen, portal, iscsiLocked), nil
	case option(c.Args, "-o") == "delete":
		if _, ok := s.records[target+" "+portal]; !ok {
			return nil, s.fail(c, 21, "iscsiadm: No records found")
		}
		delete(s.records, target+" "+portal)
		return nil, nil
	case slices.Contains(c.Args, "--login"):
		return nil, s.login(c, target, portal)
	case slices.Contains(c.Args, "--logout"):
		for name, at := range s.sessions() {
			if at == target+" "+portal {
				return nil, s.closeSession(name)
			}
		}
		return nil, s.fail(c, 21, "iscsiadm: No matching sessions found")
	}
	return nil, s.fail(c, 7, "iscsiadm: unrecognized arguments")
}

func (s *SAN) login(c sys.Cmd, target, portal string) error {
	settings, ok := s.records[target+" "+portal]
	address, port, _ := strings.Cut(portal, ":")
	switch {
	case !ok:
		return s.fail(c, 21, "iscsiadm: No records found")
	case s.down[address]:
		return s.fail(c, 8, "iscsiadm: Could not login to [iface: default, target: "+target+"]: connection timed out")
	case target == iscsiLocked && !strings.Contains(settings+"\n", "node.session.auth.password = "+iscsiSecret+"\n"):
		return s.fail(c, 24, "iscsiadm: Could not login to [iface: default, target: "+target+"]: iSCSI login failed due to authorization failure")
	}
	for _, at := range s.sessions() {
		if at == target+" "+portal {
			return s.fail(c, 15, "iscsiadm: session exists")
		}
	}
	s.serial++
	n := strconv.Itoa(s.serial)
	return errors.Join(
		s.write("/sys/class/iscsi_session/session"+n, map[string]string{"targetname": target, "state": "LOGGED_IN"}),
		s.write("/sys/class/iscsi_connection/connection"+n+":0", map[string]string{"persistent_address": address, "persistent_port": port}),
	)
}

// sessions returns "TARGET PORTAL" by names such as "session1".
func (s *SAN) sessions() map[string]string {
	all := make(map[string]string)
	for _, name := range s.entries("/sys/class/iscsi_session") {
		connection := "/sys/class/iscsi_connection/connection" + strings.TrimPrefix(name, "session") + ":0/"
		all[name] = s.read("/sys/class/iscsi_session/"+name+"/targetname") + " " + s.read(connection+"persistent_address") + ":" + s.read(connection+"persistent_port")
	}
	return all
}

func (s *SAN) closeSession(name string) error {
	return errors.Join(
		s.rig.Host.Files.RemoveAll("/sys/class/iscsi_session/"+name),
		s.rig.Host.Files.RemoveAll("/sys/class/iscsi_connection/connection"+strings.TrimPrefix(name, "session")+":0"),
	)
}

// Records returns how many records of targets iscsiadm keeps.
func (s *SAN) Records() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.records)
}

const subsystems = "/sys/class/nvme-subsystem"

func (s *SAN) nvme(_ context.Context, c sys.Cmd) ([]byte, error) {
	switch verb := c.Args[0]; verb {
	case "connect", "connect-all":
		address := option(c.Args, "--traddr")
		if address != nvmeAddress || s.down[address] || verb == "connect" && option(c.Args, "--nqn") != nvmeName {
			return nil, s.fail(c, 1, "could not add new controller: failed to write to nvme-fabrics device")
		}
		if !s.rig.Host.Files.Exists("/sys/module/nvme_tcp") {
			return nil, s.fail(c, 1, "Failed to open /dev/nvme-fabrics: No such file or directory")
		}
		switch connected := len(s.controllers()) > 0; {
		case connected && verb == "connect":
			return nil, s.fail(c, 1, "already connected")
		case connected:
			return nil, nil // it leaves out what is
		}
		return nil, s.addController(address, option(c.Args, "--trsvcid"))
	case "disconnect":
		return nil, s.closeController(option(c.Args, "--device"))
	case "disconnect-all":
		return nil, s.rig.Host.Files.RemoveAll(subsystems)
	}
	return nil, s.fail(c, 1, "ERROR: Invalid sub-command '"+c.Args[0]+"'")
}

func (s *SAN) addController(address, port string) error {
	s.serial++
	name := fmt.Sprintf("nvme%d", s.serial)
	dir := fmt.Sprintf("%s/nvme-subsys%d", subsystems, s.serial)
	if port == "" {
		port = "4420"
	}
	return errors.Join(
		s.write(dir, map[string]string{"subsysnqn": nvmeName}),
		s.write(dir+"/"+name, map[string]string{"transport": "tcp", "address": "traddr=" + address + ",trsvcid=" + port, "state": "live"}),
		s.rig.Host.Files.MkdirAll(dir+"/"+name+"/"+name+"c0n1", 0o755),
	)
}

// controllers returns the addresses by names such as "nvme1".
func (s *SAN) controllers() map[string]string {
	all := make(map[string]string)
	for _, sub := range s.entries(subsystems) {
		for _, name := range s.entries(subsystems + "/" + sub) {
			address, _, _ := strings.Cut(s.read(subsystems+"/"+sub+"/"+name+"/address"), ",")
			if at, ok := strings.CutPrefix(address, "traddr="); ok {
				all[name] = at
			}
		}
	}
	return all
}

func (s *SAN) closeController(name string) error {
	return s.rig.Host.Files.RemoveAll(subsystems + "/nvme-subsys" + strings.TrimPrefix(name, "nvme"))
}

const hub = "/sys/devices/platform/vhci_hcd.0/status"

func (s *SAN) usbip(_ context.Context, c sys.Cmd) ([]byte, error) {
	files := s.rig.Host.Files
	if !files.Exists("/sys/module/vhci_hcd") {
		return nil, s.fail(c, 1, "usbip: error: open vhci_driver (is vhci_hcd loaded?)")
	}
	status := "hub port sta spd dev      sockfd local_busid\nhs  0000 004 000 00000000 000000 0-0\n"
	const note = "/run/vhci_hcd/port0"
	if c.Args[0] == "detach" {
		return nil, errors.Join(files.WriteFile(hub, []byte(status), 0o444), files.Remove(note))
	}
	if r, b := option(c.Args, "-r"), option(c.Args, "-b"); r != usbAddress || b != usbDevice || s.down[r] {
		return nil, s.fail(c, 1, "usbip: error: tcp connect")
	}
	status = strings.Replace(status, "004 000 00000000 000000 0-0", "006 003 00010002 000003 1-1.2", 1)
	return nil, errors.Join(
		files.WriteFile(hub, []byte(status), 0o444),
		files.WriteFile(note, []byte(usbAddress+" 3240 "+usbDevice+"\n"), 0o644),
	)
}

// Disks models the daemons of multipath-tools and LVM, and their programs.
type Disks struct {
	rig   *Rig
	mu    sync.Mutex
	locks bool
	busy  bool
}

// NewDisks adds them to rig.
func NewDisks(rig *Rig) *Disks {
	d := &Disks{rig: rig}
	rig.Units.Model("multipathd.service", d.join, nil)
	rig.Units.Model("lvmlockd.service", nil, func() error { d.SetLocks(false); return nil })
	rig.Programs.Model("multipath", d.multipath)
	rig.Programs.Model("pvs", report(`{"pv":[{"pv_name":"/dev/mapper/36000000000000001","vg_name":"shared","pv_fmt":"lvm2","pv_attr":"a--","pv_size":"<10.00g","pv_free":"<10.00g"}]}`))
	rig.Programs.Model("vgs", report(`{"vg":[{"vg_name":"shared","pv_count":1,"lv_count":"0","snap_count":0,"vg_attr":"wz--ns","vg_size":"<10.00g","vg_free":"<10.00g"}]}`))
	rig.Programs.Model("vgchange", d.vgchange)
	return d
}

func report(part string) Program {
	return func(context.Context, sys.Cmd) ([]byte, error) {
		return []byte(`{"report":[` + part + `],"log":[]}`), nil
	}
}

// SetLocks says whether the locks of shared volume groups are started.
func (d *Disks) SetLocks(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.locks = on
}

// Locks reports whether they are.
func (d *Disks) Locks() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.locks
}

// SetBusy says whether somebody uses what multipathd joined.
func (d *Disks) SetBusy(busy bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.busy = busy
}

func (d *Disks) vgchange(ctx context.Context, c sys.Cmd) ([]byte, error) {
	if state, _ := d.rig.Units.State(ctx, "lvmlockd.service"); state != "active" {
		return nil, &sys.ExecError{Name: "vgchange", Code: 5, Stderr: "lvmlockd process is not running."}
	}
	d.SetLocks(slices.Contains(c.Args, "--lock-start"))
	return nil, nil
}

// join makes a map for each disk that wwids lists and that is there.
func (d *Disks) join() error {
	b, err := d.rig.Host.Files.ReadFile("/etc/multipath/wwids")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for line := range strings.Lines(string(b)) {
		id := strings.Trim(line, "/\n")
		if strings.HasPrefix(line, "/") && d.rig.Host.Files.Exists("/dev/disk/by-id/wwn-0x"+strings.TrimPrefix(id, "3")) {
			if err := d.rig.Host.Files.WriteFile("/sys/block/dm-"+id+"/dm/uuid", []byte("mpath-"+id+"\n"), 0o444); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *Disks) multipath(_ context.Context, c sys.Cmd) ([]byte, error) {
	files := d.rig.Host.Files
	if c.Args[0] == "-f" {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.busy {
			return nil, &sys.ExecError{Name: "multipath", Code: 1, Stderr: "map in use"}
		}
		return nil, files.RemoveAll("/sys/block/dm-" + c.Args[1])
	}
	var out strings.Builder
	entries, err := files.ReadDir("/sys/block")
	for _, e := range entries {
		if id, ok := strings.CutPrefix(path.Base(e.Name()), "dm-"); ok {
			fmt.Fprintf(&out, "%s dm-0 HP,HSV210\nsize=50G features='0' hwhandler='1 alua' wp=rw\n|-+- policy='service-time 0' prio=50 status=active\n| `- 1:0:0:1 sdb 8:16 active ready running\n`-+- policy='service-time 0' prio=10 status=enabled\n  `- 2:0:0:1 sdc 8:32 active ready running\n", id)
		}
	}
	return []byte(out.String()), err
}
