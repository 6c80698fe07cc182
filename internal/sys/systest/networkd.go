package systest

import (
	"cmp"
	"context"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/incusos/incusos/internal/sys"
)

// networkdDir is where the model of systemd-networkd finds its files.
const networkdDir = "/run/systemd/network"

// networkd makes systemd-networkd do on r what its files say: it makes devices, and
// gives those that are there their addresses, masters and MTU. A DHCP server gives
// each MAC address what the description of the machine says of the card.
func (r *Rig) networkd(m Machine) {
	leases := make(map[string][]string)
	for _, n := range m.NICs {
		leases[n.Hwaddr] = n.Addresses
	}
	read := func() error { return r.readNetwork(leases) }
	r.Units.Model("systemd-networkd.service", read, nil)
	r.Programs.Model("networkctl", func(context.Context, sys.Cmd) ([]byte, error) { return nil, read() })
}

func (r *Rig) readNetwork(leases map[string][]string) error {
	entries, err := r.Host.Files.ReadDir(networkdDir)
	if err != nil {
		return nil //nolint:nilerr // without files there is nothing to do
	}
	var netdevs, networks []unitFile
	for _, e := range entries {
		b, err := r.Host.Files.ReadFile(path.Join(networkdDir, e.Name()))
		if err != nil {
			return err
		}
		switch path.Ext(e.Name()) {
		case ".netdev":
			netdevs = append(netdevs, parseUnit(string(b)))
		case ".network":
			networks = append(networks, parseUnit(string(b)))
		}
	}
	r.Links.update(func() {
		for _, n := range netdevs {
			r.Links.make(n.first("NetDev.Name"), n.first("NetDev.MACAddress"))
			if peer := n.first("Peer.Name"); peer != "" {
				r.Links.make(peer, "")
				r.Links.peers[peer], r.Links.peers[n.first("NetDev.Name")] = n.first("NetDev.Name"), peer
			}
		}
		for i := range r.Links.links {
			l := &r.Links.links[i]
			if n := slices.IndexFunc(networks, func(f unitFile) bool { return f.matches(*l) }); n >= 0 {
				networks[n].configure(l, leases)
			}
		}
	})
	return nil
}

// make makes a device unless it is there. The caller holds the lock.
func (l *Links) make(name, mac string) {
	if l.index(name) < 0 {
		mac = cmp.Or(mac, "02:ff:00:00:00:00")
		l.links = append(slices.Clone(l.links), sys.Link{Name: name, Hwaddr: mac, Current: mac, MTU: 1500, Enabled: true, Up: true})
	}
}

// A unitFile is a file of systemd, by "Section.Key".
type unitFile map[string][]string

func parseUnit(text string) unitFile {
	f, section := make(unitFile), ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "["); ok {
			section = strings.TrimSuffix(name, "]")
		} else if key, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			f[section+"."+key] = append(f[section+"."+key], value)
		}
	}
	return f
}

func (f unitFile) first(key string) string {
	if len(f[key]) == 0 {
		return ""
	}
	return f[key][0]
}

func (f unitFile) matches(l sys.Link) bool {
	if f.first("Match.Kind") == "!*" && !l.Physical {
		return false
	}
	return slices.ContainsFunc(strings.Fields(f.first("Match.Name")), func(pattern string) bool {
		ok, err := path.Match(pattern, l.Name)
		return ok && err == nil
	})
}

func (f unitFile) configure(l *sys.Link, leases map[string][]string) {
	l.Master = cmp.Or(f.first("Network.Bridge"), f.first("Network.Bond"))
	if mtu, err := strconv.Atoi(f.first("Link.MTUBytes")); err == nil {
		l.MTU = mtu
	}
	l.Addresses = slices.Clone(f["Network.Address"])
	if dhcp := f.first("Network.DHCP"); dhcp == "yes" || dhcp == "ipv4" {
		for _, a := range leases[l.Current] {
			if !slices.Contains(l.Addresses, a) {
				l.Addresses = append(l.Addresses, a)
			}
		}
	}
}
