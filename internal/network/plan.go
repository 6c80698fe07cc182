package network

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

// A Plan is the difference between the machine and a configuration. One that is
// Empty means that there is nothing to do.
type Plan struct {
	Write  map[string]File // by path
	Remove []string        // paths
	Delete []string        // devices that are not wanted, or are made anew
	Tell   []string        // services that have not accepted these files yet

	cards   []renaming
	taken   bool              // a bridge that stayed for the sake of instances is configured again
	digests map[string]string // what the files of Tell amount to
	secret  []string          // files that only networkd may read
	want    map[string]File   // all files
	steps   api.Plan
}

// Empty reports whether the machine already matches.
func (p Plan) Empty() bool {
	return len(p.Write) == 0 && len(p.Remove) == 0 && len(p.Delete) == 0 && len(p.Tell) == 0 && len(p.cards) == 0
}

// String lists the steps, one a line, for logs and for ?dry-run.
func (p Plan) String() string { return p.steps.String() }

// Steps are what there is to do, as people are told. What is set up anew may lose
// connections, the one that asked for it among them.
func (p Plan) Steps() api.Plan { return p.steps }

// Plan reports what Apply would have to do to reach cfg. It changes nothing.
func (n *Network) Plan(cfg api.NetworkConfig) (Plan, error) { return n.plan(cfg, false) }

func (n *Network) plan(cfg api.NetworkConfig, keep bool) (Plan, error) {
	links, originals, err := n.machine()
	if err != nil {
		return Plan{}, err
	}
	given := Given{Cards: resolve(cfg, links, originals)}
	if given.Keys, err = n.keys(cfg, keep); err != nil {
		return Plan{}, err
	}
	if n.Listens != nil {
		given.Ports = n.Listens()
	}
	want := Render(cfg, given)
	have, err := n.observe()
	if err != nil {
		return Plan{}, err
	}
	p := Plan{Write: maps.Clone(want), digests: make(map[string]string), want: want, cards: renamings(cfg, given, links, originals)}
	p.taken = takenBack(want, have, links)
	for name, content := range have {
		switch now, ok := want[name]; {
		case !ok:
			p.Remove = append(p.Remove, name)
		case now.Content == content:
			delete(p.Write, name)
		}
	}
	slices.Sort(p.Remove)
	p.Delete = deleted(have, want, links)
	for name, f := range want {
		if f.Secret && strings.HasSuffix(name, ".netdev") {
			p.secret = append(p.secret, name)
		}
	}
	slices.Sort(p.secret)
	err = n.planTell(&p, want)
	p.steps = inWords(p, have)
	return p, err
}

// deleted returns the devices whose file goes away or is another one now: networkd
// makes devices but deletes and changes none. A bridge is changed while it is in
// use, and stays if instances are connected to it.
func deleted(have map[string]string, want map[string]File, links []sys.Link) (devices []string) {
	for name, content := range have {
		device, isDevice := strings.CutSuffix(path.Base(name), ".netdev")
		now, stays := want[name]
		bridge := strings.Contains(content, "\nKind=bridge\n")
		if device = strings.TrimPrefix(device, prefix+"-"); !isDevice || stays && (now.Content == content || bridge && strings.Contains(now.Content, "\nKind=bridge\n")) {
			continue
		}
		if bridge && len(guests(links, device)) > 0 {
			continue
		}
		devices = append(devices, device)
	}
	slices.SortFunc(devices, func(a, b string) int { // bonds and pairs go before the bridges they are part of
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b))
	})
	return devices
}

func rank(device string) int {
	if strings.HasPrefix(device, "_") {
		return 0
	}
	return 1
}

// guests returns the ports of a bridge that are not ours.
func guests(links []sys.Link, bridge string) (ports []string) {
	for _, l := range links {
		if l.Master == bridge && !strings.HasPrefix(l.Name, "_") {
			ports = append(ports, l.Name)
		}
	}
	return ports
}

// A service is told of its files.
type service struct{ unit, dir, kind string } // kind: how files end that are not another's; "" any

// services returns them in the order in which they are told. The firewall comes
// before there is anything to reach.
func services() []service {
	return []service{{packets, firewallDir, ""}, {networkd, networkdDir, ""}, {udevd, networkdDir, ".link"}, {resolved, resolvedDir, ""}, {timesyncd, timesyncdDir, ""}}
}

// reads reports whether a file is one of s.
func (s service) reads(name string) bool {
	return path.Dir(name) == s.dir && strings.HasSuffix(name, ".link") == (s.kind == ".link")
}

// planTell adds to p the services that last accepted something other than
// want, or whose files are about to change.
func (n *Network) planTell(p *Plan, want map[string]File) error {
	touched := append(slices.Collect(maps.Keys(p.Write)), p.Remove...)
	for _, s := range services() {
		now := digest(want, s)
		accepted, err := n.accepted(s.unit)
		if err != nil {
			return err
		}
		changes := slices.ContainsFunc(touched, s.reads)
		if changes || accepted != now || s.unit == networkd && len(p.cards) > 0 {
			p.Tell = append(p.Tell, s.unit)
			p.digests[s.unit] = now
		}
	}
	return nil
}

// accepted returns the digest of the files unit last read. Before the first
// time that is the digest of no files.
func (n *Network) accepted(unit string) (string, error) {
	b, err := n.host.Files.ReadFile(stamps + unit)
	if errors.Is(err, fs.ErrNotExist) {
		return digest(nil, service{}), nil
	}
	if err != nil {
		return "", fmt.Errorf("reading what %s accepted: %w", unit, err)
	}
	return string(b), nil
}

// observe returns our files in place, path to content.
func (n *Network) observe() (map[string]string, error) {
	have := make(map[string]string)
	for _, s := range services() {
		entries, err := n.host.Files.ReadDir(s.dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("listing the network files in place: %w", err)
		}
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), prefix) {
				continue
			}
			name := path.Join(s.dir, e.Name())
			b, err := n.host.Files.ReadFile(name)
			if err != nil {
				return nil, fmt.Errorf("reading the network files in place: %w", err)
			}
			have[name] = string(b)
		}
	}
	return have, nil
}

// digest sums up the files that s reads.
func digest(files map[string]File, s service) string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if s.reads(name) {
			fmt.Fprintf(h, "%s\x00%s\x00", name, files[name].Content)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// mayCut is what may be lost while a device that is in use changes.
const mayCut = "connections over it may end"

// inWords says what p does, one step for each device.
func inWords(p Plan, have map[string]string) (steps api.Plan) {
	for _, d := range gone(p) {
		if slices.Contains(p.Delete, d) {
			steps.Risk("take down", d, mayCut)
		} else {
			steps.Do("keep", "bridge "+d+", to which instances are connected, without its card")
		}
	}
	for _, c := range p.cards {
		verb, name := "take", c.from
		if !strings.HasPrefix(c.to, "_p") {
			verb, name = "release", c.to
		}
		steps.Risk(verb, "card "+name+" ("+c.mac+")", mayCut)
	}
	set, changed := make(map[string]bool), make(map[string]bool)
	for name, f := range p.want {
		_, there := have[name]
		_, write := p.Write[name]
		set[f.Device] = set[f.Device] || there
		changed[f.Device] = changed[f.Device] || write
	}
	delete(changed, "")
	for _, device := range slices.Sorted(maps.Keys(changed)) {
		switch {
		case changed[device] && set[device]:
			steps.Risk("change", device, mayCut)
		case changed[device]:
			steps.Do("set up", device)
		}
	}
	for _, unit := range p.Tell {
		if unit == packets {
			steps.Do("replace the rules of", "the firewall")
		} else {
			steps.Do("reload", unit)
		}
	}
	return steps
}

// gone returns the devices that the operator named once and does not any more.
func gone(p Plan) (devices []string) {
	for _, name := range p.Remove {
		device, ok := strings.CutSuffix(path.Base(name), ".netdev")
		if device = strings.TrimPrefix(device, prefix+"-"); ok && !strings.HasPrefix(device, "_") {
			devices = append(devices, device)
		}
	}
	return devices
}

// takenBack reports whether a bridge that there is gets its file back. It was without
// one as long as nobody but instances needed it, and networkd does not know it.
func takenBack(want map[string]File, have map[string]string, links []sys.Link) bool {
	for name, f := range want {
		_, known := have[name]
		bridge := strings.TrimPrefix(strings.TrimSuffix(path.Base(name), ".netdev"), prefix+"-")
		if !known && strings.Contains(f.Content, "\nKind=bridge\n") && slices.ContainsFunc(links, func(l sys.Link) bool { return l.Name == bridge }) {
			return true
		}
	}
	return false
}
