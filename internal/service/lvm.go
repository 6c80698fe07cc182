package service

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/incusos/incusos/api"
)

// lvm shares volume groups with other machines: lvmlockd asks sanlock for leases,
// which lie on the shared disks, and wdmd stops a machine that lost its own.
type lvm struct {
	machine
	found cache[lvmReport]
}

func newLVM(m machine) *lvm { return &lvm{machine: m} }

const (
	lvmLocal = "/etc/lvm/lvmlocal.conf"
	locksKey = "locks" // in the ledger: the volume groups whose locks were started
)

// renderLVM returns the part of LVM's configuration that is this machine's. Block
// devices of Incus' instances may hold volume groups of theirs, which are none of
// ours.
func renderLVM(id int) string {
	return "# Made by incus-osd; do not edit.\n" +
		"global {\n\tuse_lvmlockd = 1\n}\n" +
		"local {\n\thost_id = " + strconv.Itoa(id) + "\n}\n" +
		"devices {\n\tglobal_filter = [ \"r|^/dev/zd.*|\", \"r|^/dev/zvol/.*|\", \"r|^/dev/rbd.*|\", \"r|^/dev/nbd.*|\" ]\n}\n"
}

func (s *lvm) steps(ctx context.Context, config api.ServiceLVMConfig, on bool) ([]step, error) {
	base := setup{
		key: "lvmlockd", owned: []string{lvmLocal}, forget: []string{locksKey},
		units: []string{"wdmd.service", "sanlock.service", "lvmlockd.service"},
		risk:  "shared volume groups cannot be changed meanwhile",
	}
	if !on {
		down, err := s.lower(ctx, base)
		return append(s.unlock(), down...), err
	}
	base.files = map[string]file{lvmLocal: {content: renderLVM(config.SystemID), perm: 0o644}}
	if !s.Files.Exists("/dev/watchdog") {
		base.modules = []string{"softdog"}
	}
	up, err := s.raise(ctx, base)
	if err != nil {
		return nil, err
	}
	return append(up, s.lock(ctx, len(up) > 0)...), nil
}

// lock returns the step that starts the locks of shared volume groups, unless they
// were started since the daemons were and there is no other group.
func (s *lvm) lock(ctx context.Context, started bool) []step {
	l := s.ledger()
	if now, err := s.shared(ctx); err == nil && !started && l.get(locksKey) == now {
		return nil
	}
	return []step{doing("start", "the locks of shared volume groups", "", func(ctx context.Context) error {
		if _, err := s.run(ctx, "vgchange", "--lock-start"); err != nil {
			return fmt.Errorf("starting the locks of shared volume groups: %w; is another machine using system_id too?", err)
		}
		now, err := s.shared(ctx)
		if err != nil {
			return err
		}
		return l.put(locksKey, now)
	})}
}

func (s *lvm) unlock() []step {
	l := s.ledger()
	if l.get(locksKey) == "" {
		return nil
	}
	return []step{doing("stop", "the locks of shared volume groups", "they cannot be used any more", func(ctx context.Context) error {
		if _, err := s.run(ctx, "vgchange", "--lock-stop"); err != nil {
			return fmt.Errorf("stopping the locks of shared volume groups: %w; stop the instances that use them first", err)
		}
		return l.forget(locksKey)
	})}
}

// shared returns the names of the shared volume groups, each after a blank: the
// sixth letter of their attributes is an s (vgs(8)).
func (s *lvm) shared(ctx context.Context) (string, error) {
	r, err := s.ask(ctx, "vgs")
	if err != nil {
		return "", err
	}
	names := "all:"
	for _, vg := range r.vgs {
		if len(vg.VGAttr) >= 6 && vg.VGAttr[5] == 's' {
			names += " " + vg.VGName
		}
	}
	return names, nil
}

// force ends the daemons at once. They do not end by themselves while locks are
// held, which after trouble with the disks is for ever.
func (s *lvm) force(ctx context.Context) error {
	for _, unit := range []string{"lvmlockd.service", "sanlock.service", "wdmd.service"} {
		up, err := s.up(ctx, unit)
		if err != nil {
			return err
		}
		if !up {
			continue
		}
		if _, err := s.run(ctx, "systemctl", "kill", "--signal=SIGKILL", unit); err != nil {
			return fmt.Errorf("ending %s: %w", unit, err)
		}
		if err := s.Units.Stop(ctx, unit); err != nil {
			return err
		}
	}
	if err := s.Files.RemoveAll("/dev/shm/wdmd"); err != nil {
		return err
	}
	return s.ledger().forget(locksKey) // they ended with the daemons
}

// An lvmReport is what pvs and vgs say.
type lvmReport struct {
	pvs []api.ServiceLVMPV
	vgs []api.ServiceLVMVG
	log []api.ServiceLVMLog
}

// ask has LVM report. It also does when something is wrong, and says what.
func (s *lvm) ask(ctx context.Context, program string) (lvmReport, error) {
	out, runErr := s.run(ctx, program, "--reportformat", "json_std", "--config", "log{report_command_log=1}")
	r, err := parseLVM(out)
	if err != nil && runErr != nil {
		return r, fmt.Errorf("asking LVM what there is: %w", runErr)
	}
	return r, err
}

// A number is one in a report of LVM, which quotes some.
type number int

func (n *number) UnmarshalJSON(b []byte) error {
	i, err := strconv.Atoi(strings.Trim(string(b), `"`))
	*n = number(i)
	return err
}

// parseLVM reads a report (lvmreport(7)).
func parseLVM(out []byte) (lvmReport, error) {
	var doc struct {
		Report []struct {
			PV []api.ServiceLVMPV `json:"pv"`
			VG []struct {
				Name  string `json:"vg_name"`
				PVs   number `json:"pv_count"`
				LVs   number `json:"lv_count"`
				Snaps number `json:"snap_count"`
				Attr  string `json:"vg_attr"`
				Size  string `json:"vg_size"`
				Free  string `json:"vg_free"`
			} `json:"vg"`
		} `json:"report"`
		Log []struct {
			Seq     number `json:"log_seq_num"`
			Type    string `json:"log_type"`
			Context string `json:"log_context"`
			Object  string `json:"log_object_type"`
			Name    string `json:"log_object_name"`
			ID      string `json:"log_object_id"`
			Group   string `json:"log_object_group"`
			GroupID string `json:"log_object_group_id"`
			Message string `json:"log_message"`
			Errno   number `json:"log_errno"`
			Ret     number `json:"log_ret_code"`
		} `json:"log"`
	}
	if err := json.Unmarshal(out, &doc); err != nil {
		return lvmReport{}, fmt.Errorf("reading a report of LVM: %w", err)
	}
	var r lvmReport
	for _, part := range doc.Report {
		r.pvs = append(r.pvs, part.PV...)
		for _, v := range part.VG {
			r.vgs = append(r.vgs, api.ServiceLVMVG{VGName: v.Name, PVCount: int(v.PVs), LVCount: int(v.LVs), SnapCount: int(v.Snaps), VGAttr: v.Attr, VGSize: v.Size, VGFree: v.Free})
		}
	}
	for _, e := range doc.Log {
		r.log = append(r.log, api.ServiceLVMLog{
			SeqNum: int(e.Seq), Type: e.Type, Context: e.Context, ObjectType: e.Object, ObjectName: e.Name, ObjectID: e.ID,
			ObjectGroup: e.Group, ObjectGroupID: e.GroupID, Message: e.Message, Errno: int(e.Errno), RetCode: int(e.Ret),
		})
	}
	return r, nil
}

func (s *lvm) check(api.ServiceLVMConfig) error { return nil }

// refresh looks at LVM even while the service is off: volume groups need no
// daemon to be there.
func (s *lvm) refresh(ctx context.Context, _ api.ServiceLVMConfig) {
	if !s.has("pvs") || !s.has("vgs") {
		return
	}
	pvs, pvErr := s.ask(ctx, "pvs")
	vgs, vgErr := s.ask(ctx, "vgs")
	if pvErr == nil && vgErr == nil { // else what was found before stays, with its time
		s.found.put(lvmReport{pvs.pvs, vgs.vgs, append(pvs.log, vgs.log...)})
	}
}

func (s *lvm) document(config api.ServiceLVMConfig, state api.ServiceState) any {
	r, observed := s.found.get()
	state.Observed = observed
	return api.ServiceLVM{Config: config, State: api.ServiceLVMState{ServiceState: state, PVs: r.pvs, VGs: r.vgs, Log: r.log}}
}
