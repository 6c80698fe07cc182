package service

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/incusos/incusos/api"
)

// multipath joins the paths to a disk into one device, by multipath-tools. Only
// the disks in the document are joined.
type multipath struct {
	machine
	devices cache[map[string]api.ServiceMultipathDevice]
}

func newMultipath(m machine) *multipath { return &multipath{machine: m} }

const (
	multipathConf = "/etc/multipath.conf"
	wwidsFile     = "/etc/multipath/wwids"
)

// multipathSettings join what wwids lists and nothing else. Block devices of Incus'
// own storage are not even looked at.
const multipathSettings = `# Made by incus-osd; do not edit.
defaults {
	find_multipaths strict
	user_friendly_names no
}
blacklist {
	devnode "^(zd|rbd|nbd|drbd|loop|zram)[0-9]"
}
`

// wwid returns the name that multipath-tools has for a disk: that of scsi_id, the
// type of the identifier (3 is NAA) before it.
func wwid(wwn string) string { return "3" + strings.TrimPrefix(wwn, "0x") }

func renderWWIDs(wwns []string) string {
	var b strings.Builder
	b.WriteString("# Made by incus-osd; do not edit.\n# Valid WWIDs:\n")
	for _, w := range wwns {
		b.WriteString("/" + wwid(w) + "/\n")
	}
	return b.String()
}

func (s *multipath) steps(ctx context.Context, config api.ServiceMultipathConfig, on bool) ([]step, error) {
	base := setup{
		key: "multipathd", modules: []string{"dm-multipath"}, owned: []string{multipathConf, wwidsFile},
		units: []string{"multipathd.service"}, risk: "paths that fail meanwhile are not given up",
	}
	if !on {
		down, err := s.lower(ctx, base)
		if s.ledger().get(base.key) == "" {
			return down, err // none of the maps is ours
		}
		return append(s.flushes(nil), down...), err
	}
	base.files = map[string]file{
		multipathConf: {content: multipathSettings, perm: 0o644},
		wwidsFile:     {content: renderWWIDs(config.WWNs), perm: 0o600},
	}
	up, err := s.raise(ctx, base)
	return append(s.flushes(config.WWNs), up...), err
}

// flushes returns the steps that take apart what is not wanted any more. It comes
// before the daemon is told, which goes on caring for what is in use.
func (s *multipath) flushes(wanted []string) []step {
	var steps []step
	for _, have := range s.maps() {
		if slices.ContainsFunc(wanted, func(w string) bool { return wwid(w) == have }) {
			continue
		}
		steps = append(steps, doing("flush", "the paths to "+have, "what uses the disk has to let go of it", func(ctx context.Context) error {
			if _, err := s.run(ctx, "multipath", "-f", have); err != nil {
				return fmt.Errorf("flushing the paths to %s: %w; it may be in use", have, err)
			}
			return nil
		}))
	}
	return steps
}

// maps returns the WWIDs of what is joined now, from sysfs.
func (s *multipath) maps() []string {
	var all []string
	for _, name := range s.list("/sys/block") {
		if id, ok := strings.CutPrefix(s.attribute("/sys/block/"+name+"/dm/uuid"), "mpath-"); ok {
			all = append(all, id)
		}
	}
	return all
}

// check refuses disks that are not there: a mistyped WWN would never be noticed.
func (s *multipath) check(config api.ServiceMultipathConfig) error {
	for i, w := range config.WWNs {
		if config.On() && !s.present(w) {
			return api.Fieldf(fmt.Sprintf("config.wwns[%d]", i), "%q is no disk of this machine; want the part after \"wwn-\" of a name in /dev/disk/by-id", w)
		}
	}
	return nil
}

func (s *multipath) present(wwn string) bool { return s.Files.Exists("/dev/disk/by-id/wwn-" + wwn) }

// complain reports disks that have gone.
func (s *multipath) complain(config api.ServiceMultipathConfig) error {
	var gone []string
	for _, w := range config.WWNs {
		if !s.present(w) {
			gone = append(gone, w)
		}
	}
	if gone == nil {
		return nil
	}
	return fmt.Errorf("no path leads to %s; check cables and zoning, or take it out of config.wwns", strings.Join(gone, ", "))
}

func (s *multipath) refresh(ctx context.Context, config api.ServiceMultipathConfig) {
	if !config.On() || !s.has("multipath") {
		s.devices.put(nil)
		return
	}
	if out, err := s.run(ctx, "multipath", "-ll"); err == nil {
		s.devices.put(parseMultipath(string(out)))
	}
}

var (
	mapLine   = regexp.MustCompile(`^(?:\S+ \((\S+)\)|(\S+)) dm-\d+ (.+)$`)
	sizeField = regexp.MustCompile(`\bsize=(\S+)`)
	groupLine = regexp.MustCompile(`^[|\x60]-\+- policy='([^']*)' prio=(-?\d+) status=(\S+)`)
	pathLine  = regexp.MustCompile(`^[| ] +?[|\x60]- (\S+) +\S+ +\S+ +(.+?) *$`)
)

// parseMultipath reads what `multipath -ll` prints: for each map a line with its
// name, one with its size, and below them groups of paths as a tree.
func parseMultipath(out string) map[string]api.ServiceMultipathDevice {
	all := make(map[string]api.ServiceMultipathDevice)
	var id string
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, "\r\n")
		d := all[id]
		switch {
		case mapLine.MatchString(line):
			m := mapLine.FindStringSubmatch(line)
			id = m[1] + m[2]
			d = api.ServiceMultipathDevice{Vendor: m[3]}
		case id == "":
			continue
		case groupLine.MatchString(line):
			m := groupLine.FindStringSubmatch(line)
			priority, _ := strconv.Atoi(m[2])
			d.PathGroups = append(d.PathGroups, api.ServiceMultipathPathGroup{Policy: m[1], Priority: priority, Status: m[3]})
		case pathLine.MatchString(line) && len(d.PathGroups) > 0:
			m := pathLine.FindStringSubmatch(line)
			last := &d.PathGroups[len(d.PathGroups)-1]
			last.Paths = append(last.Paths, api.ServiceMultipathPath{ID: m[1], Status: m[2]})
		case sizeField.MatchString(line):
			d.Size = sizeField.FindStringSubmatch(line)[1]
		}
		all[id] = d
	}
	return all
}

// fibreChannel returns the Fibre Channel ports of the machine (kernel
// documentation, scsi/scsi_fc_transport).
func (m machine) fibreChannel() []api.ServiceMultipathController {
	const class = "/sys/class/fc_host/"
	var all []api.ServiceMultipathController
	for _, host := range m.list(class) {
		get := func(name string) string { return m.attribute(class + host + "/" + name) }
		all = append(all, api.ServiceMultipathController{
			FabricName: get("fabric_name"), NodeName: get("node_name"), PortName: get("port_name"), PortState: get("port_state"),
			PortType: get("port_type"), Speed: get("speed"), SupportedSpeeds: get("supported_speeds"),
		})
	}
	return all
}

func (s *multipath) document(config api.ServiceMultipathConfig, state api.ServiceState) any {
	devices, observed := s.devices.get()
	if devices != nil {
		state.Observed = observed
	}
	return api.ServiceMultipath{Config: config, State: api.ServiceMultipathState{ServiceState: state, Controllers: s.fibreChannel(), Devices: devices}}
}
