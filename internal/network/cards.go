package network

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strings"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

// cardsFile has the names that cards had before they were renamed, by MAC address.
// It lives as long as the new names do.
const cardsFile = "/run/incus-os/network.cards"

// originals returns what cards were called first, by MAC address.
func (n *Network) originals() (map[string]string, error) {
	names := make(map[string]string)
	b, err := n.host.Files.ReadFile(cardsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return names, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the names of network cards: %w", err)
	}
	if err := json.Unmarshal(b, &names); err != nil {
		return nil, fmt.Errorf("%s: %w", cardsFile, err)
	}
	return names, nil
}

// resolve returns the MAC address of everything that cfg calls a card: itself, or
// that of the card that has or had this name.
func resolve(cfg api.NetworkConfig, links []sys.Link, originals map[string]string) map[string]string {
	cards := make(map[string]string)
	for _, card := range cardsOf(cfg) {
		if mac, err := net.ParseMAC(card); err == nil {
			cards[card] = mac.String()
			continue
		}
		for _, l := range links {
			// A bridge may have the name that its card had.
			if l.Physical && (l.Name == card || originals[l.Hwaddr] == card) {
				cards[card] = l.Hwaddr
			}
		}
	}
	return cards
}

// cardsOf returns what cfg calls its cards.
func cardsOf(cfg api.NetworkConfig) (cards []string) {
	for _, i := range cfg.Interfaces {
		cards = append(cards, i.Hwaddr)
	}
	for _, b := range cfg.Bonds {
		cards = append(cards, b.Members...)
	}
	return cards
}

// A renaming is what a card needs to play its part.
type renaming struct {
	from, to string // names; the same if only the address changes
	mac      string // by which it is known
	address  string // MAC address to take, its own if it was hidden; "" keeps the one it has
}

// renamings returns what is to be done to the cards: those in use have a name of
// ours, and those of interfaces another address, since theirs is the host's. What
// is not in use becomes again what it was.
func renamings(cfg api.NetworkConfig, given Given, links []sys.Link, originals map[string]string) (list []renaming) {
	own := make(map[string]string) // MAC address in use by that of the card
	for _, card := range cardsOf(cfg) {
		if mac, ok := given.Cards[card]; ok {
			own[mac] = mac
		}
	}
	for _, i := range cfg.Interfaces {
		if mac, ok := given.Cards[i.Hwaddr]; ok {
			own[mac] = hiddenMAC(mac)
		}
	}
	for _, l := range links {
		address, used := own[l.Hwaddr]
		if !l.Physical || !used && !strings.HasPrefix(l.Name, "_p") {
			continue
		}
		r := renaming{from: l.Name, to: cardName(l.Hwaddr), mac: l.Hwaddr}
		if !used {
			address = l.Hwaddr
			r.to = l.Name
			if first := originals[l.Hwaddr]; first != "" && !taken(cfg, first, links) {
				r.to = first
			}
		}
		if !strings.EqualFold(l.Current, address) && !inBond(l, links) {
			r.address = address
		}
		if r.from != r.to || r.address != "" {
			list = append(list, r)
		}
	}
	return list
}

// taken reports whether a card cannot have a name back: a device that cfg wants is
// called so, or a bridge that stays because instances are connected to it.
func taken(cfg api.NetworkConfig, name string, links []sys.Link) bool {
	return slices.Contains(deviceNames(cfg), name) || len(guests(links, name)) > 0
}

// deviceNames returns the names that the operator gave.
func deviceNames(cfg api.NetworkConfig) (names []string) {
	for _, i := range cfg.Interfaces {
		names = append(names, i.Name)
	}
	for _, b := range cfg.Bonds {
		names = append(names, b.Name)
	}
	for _, v := range cfg.VLANs {
		names = append(names, v.Name)
	}
	for _, w := range cfg.Wireguard {
		names = append(names, w.Name)
	}
	return names
}

// inBond reports whether a card has the address of a bond for now.
func inBond(l sys.Link, links []sys.Link) bool {
	return strings.HasPrefix(l.Master, "_b") && slices.ContainsFunc(links, func(b sys.Link) bool { return b.Name == l.Master && b.Current == l.Current })
}

// hiddenMAC returns the address that a card takes whose own is the host's: always
// the same one, locally administered and of a single card (IEEE 802, section 8.4).
func hiddenMAC(mac string) string {
	sum := sha256.Sum256([]byte("card " + mac))
	b := net.HardwareAddr(sum[:6])
	b[0] = b[0]&^1 | 2
	return b.String()
}

// missing returns the devices of cfg that have no card here, each with what it
// calls the card.
func missing(cfg api.NetworkConfig, cards map[string]string, links []sys.Link) (complaints []string) {
	here := func(card string) bool {
		mac, ok := cards[card]
		return ok && slices.ContainsFunc(links, func(l sys.Link) bool { return l.Physical && l.Hwaddr == mac })
	}
	for _, i := range cfg.Interfaces {
		if !here(i.Hwaddr) {
			complaints = append(complaints, fmt.Sprintf("interface %q has no network card: %s is not in this machine", i.Name, i.Hwaddr))
		}
	}
	for _, b := range cfg.Bonds {
		for _, m := range b.Members {
			if !here(m) {
				complaints = append(complaints, fmt.Sprintf("bond %q lacks a member: %s is not in this machine", b.Name, m))
			}
		}
	}
	return complaints
}

// listCards says which cards a machine has.
func listCards(links []sys.Link, originals map[string]string) string {
	var found []string
	for _, l := range links {
		if l.Physical {
			name := l.Name
			if first := originals[l.Hwaddr]; first != "" {
				name = first
			}
			found = append(found, fmt.Sprintf("%s (%s)", l.Hwaddr, name))
		}
	}
	return listed(found, "none")
}

// Check refuses cards that this machine does not have: a document that names one
// has a mistake in it, and the machine could be out of reach with it.
func (n *Network) Check(cfg api.NetworkConfig) error {
	links, originals, err := n.machine()
	if err != nil {
		return err
	}
	cards := resolve(cfg, links, originals)
	for i, d := range cfg.Interfaces {
		if missing(api.NetworkConfig{Interfaces: []api.NetworkInterface{d}}, cards, links) != nil {
			return api.Fieldf(fmt.Sprintf("interfaces[%d].hwaddr", i), "%s is not in this machine; it has %s", d.Hwaddr, listCards(links, originals))
		}
	}
	seen := make(map[string]string)
	for i, b := range cfg.Bonds {
		for j, m := range b.Members {
			if missing(api.NetworkConfig{Bonds: []api.NetworkBond{{Members: []string{m}}}}, cards, links) != nil {
				return api.Fieldf(fmt.Sprintf("bonds[%d].members[%d]", i, j), "%s is not in this machine; it has %s", m, listCards(links, originals))
			}
		}
	}
	for _, card := range cardsOf(cfg) {
		if first, ok := seen[cards[card]]; ok {
			return api.Fieldf("interfaces", "%s and %s are the same card; want each once", first, card)
		}
		seen[cards[card]] = card
	}
	return nil
}

// Links returns the devices there are, cards under the names they had before they
// were renamed: those that the operator and documents know them by.
func (n *Network) Links() ([]sys.Link, error) {
	links, originals, err := n.machine()
	for i, l := range links {
		if first := originals[l.Hwaddr]; l.Physical && first != "" {
			links[i].Name = first
		}
	}
	return links, err
}

// machine returns the devices there are, and what cards were called first.
func (n *Network) machine() ([]sys.Link, map[string]string, error) {
	links, err := n.host.Links.List()
	if err != nil {
		return nil, nil, err
	}
	links = slices.DeleteFunc(links, func(l sys.Link) bool { return l.Physical && !n.settled(l) })
	originals, err := n.originals()
	return links, originals, err
}

// settled reports whether udev is done with a card. Until then udev may rename it,
// and we would not learn the name that the operator knows.
func (n *Network) settled(l sys.Link) bool {
	if !n.host.Files.Exists("/run/udev/control") {
		return true // there is no udev
	}
	index, err := n.host.Files.ReadFile("/sys/class/net/" + l.Name + "/ifindex")
	return err == nil && n.host.Files.Exists("/run/udev/data/n"+strings.TrimSpace(string(index)))
}
