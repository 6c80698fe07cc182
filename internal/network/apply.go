package network

import (
	"context"
	"encoding/json"
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

// Apply makes the machine match cfg. It is idempotent: applying the same
// configuration twice tells no service the second time. After an error the
// machine may be half way, and applying any configuration again repairs it.
func (n *Network) Apply(ctx context.Context, cfg api.NetworkConfig) error {
	p, err := n.plan(cfg, true)
	if err != nil {
		return err
	}
	// Devices go first: once their files are gone, nobody would know of them.
	for _, device := range p.Delete {
		if err := n.host.Links.Delete(device); err != nil {
			return err
		}
	}
	if err := n.rename(p.cards); err != nil {
		return err
	}
	if err := n.write(ctx, p); err != nil {
		return err
	}
	for _, unit := range p.Tell {
		if err := n.tell(ctx, unit, p); err != nil {
			return err
		}
		if err := n.host.Files.WriteFile(stamps+unit, []byte(p.digests[unit]), 0o644); err != nil {
			return fmt.Errorf("recording what %s accepted: %w", unit, err)
		}
	}
	return n.hide(p.cards)
}

// hide gives cards that were taken another address, once networkd does not ask for
// addresses on them any more: the server would know the other one too.
func (n *Network) hide(cards []renaming) error {
	for _, c := range cards {
		if c.address != "" && c.address != c.mac {
			if err := n.host.Links.SetHwaddr(c.to, c.address); err != nil {
				return err
			}
		}
	}
	return nil
}

// rename gives cards their names, and those that are free their addresses. What networkd accepted counts no
// more: it has to look at them again, even if that is in the next attempt.
func (n *Network) rename(cards []renaming) error {
	if len(cards) == 0 {
		return nil
	}
	originals, err := n.originals()
	if err != nil {
		return err
	}
	for _, c := range cards {
		if !strings.HasPrefix(c.from, "_p") {
			originals[c.mac] = c.from
		}
	}
	b, err := json.Marshal(originals)
	if err == nil {
		err = n.open("/run/incus-os")
	}
	if err == nil {
		err = n.host.Files.WriteFile(cardsFile, b, 0o644)
	}
	if err == nil {
		err = n.host.Files.WriteFile(stamps+networkd, []byte("cards were renamed"), 0o644)
	}
	if err != nil {
		return fmt.Errorf("recording the names of network cards: %w", err)
	}
	for _, c := range cards {
		if c.from != c.to {
			if err := n.host.Links.Rename(c.from, c.to); err != nil {
				return err
			}
		}
		if c.address == c.mac {
			if err := n.host.Links.SetHwaddr(c.to, c.address); err != nil {
				return err
			}
		}
	}
	return nil
}

func (n *Network) write(ctx context.Context, p Plan) error {
	for _, name := range p.Remove {
		if err := n.reset(ctx, name); err != nil {
			return err
		}
		if err := n.host.Files.Remove(name); err != nil {
			return fmt.Errorf("removing a network file: %w", err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Write)) {
		if err := n.open(path.Dir(name)); err != nil {
			return err
		}
		f := p.Write[name]
		if err := n.host.Files.WriteFile(name, []byte(f.Content), f.mode(name)); err != nil {
			return fmt.Errorf("writing a network file: %w", err)
		}
	}
	for _, name := range p.secret { // each time, since a file whose group is not set yet looks like one that is done
		if err := n.host.Files.SetGroup(name, "systemd-network"); err != nil {
			return fmt.Errorf("letting systemd-networkd read its keys: %w", err)
		}
	}
	return nil
}

// mode returns the permissions of a file: networkd reads keys as a member of its
// group, udev as root.
func (f File) mode(name string) fs.FileMode {
	switch {
	case f.Secret && strings.HasSuffix(name, ".netdev"):
		return 0o640
	case f.Secret:
		return 0o600
	}
	return 0o644
}

// open makes a directory that the services can read. They do not run as root,
// and the daemon's umask keeps what it makes to root.
func (n *Network) open(dir string) error {
	if err := n.host.Files.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making a directory for network files: %w", err)
	}
	f, err := n.host.Files.Open(dir)
	if err == nil {
		err = errors.Join(f.Chmod(0o755), f.Close())
	}
	if err != nil {
		return fmt.Errorf("opening the directory of network files to the services: %w", err)
	}
	return nil
}

// tell makes a service read its files again. networkd keeps links up when it
// reloads; resolved and timesyncd have nothing to lose and are started anew.
func (n *Network) tell(ctx context.Context, unit string, p Plan) error {
	switch unit {
	case packets:
		return n.filter(ctx)
	case udevd:
		return n.setCards(ctx, p.want)
	}
	state, err := n.host.Units.State(ctx, unit)
	if err != nil {
		return err
	}
	switch down := state == "inactive" || state == "failed"; {
	case down:
		// It reads its files when it starts, which early in the boot is some
		// seconds away; nothing here has to wait for that.
		return n.host.Units.Queue(ctx, unit)
	case unit == networkd:
		return n.reload(ctx, p)
	}
	return n.host.Units.Restart(ctx, unit)
}

// filter gives the kernel the rules, all of them or none.
func (n *Network) filter(ctx context.Context) error {
	rules, err := n.host.Files.ReadFile(firewallFile)
	if err != nil {
		return fmt.Errorf("reading the firewall rules: %w", err)
	}
	c := sys.Command("nft", "-f", "-")
	c.Stdin = strings.NewReader(string(rules))
	if _, err := n.host.Exec.Run(ctx, c); err != nil {
		return fmt.Errorf("setting up the firewall: %w", err)
	}
	return nil
}

// reload waits for a networkd that is just starting, since it may have read its
// files before they were written.
func (n *Network) reload(ctx context.Context, p Plan) error {
	for _, unit := range []string{bus, networkd} { // networkctl needs both, and early in the boot either may be missing
		if err := n.host.Units.Start(ctx, unit); err != nil {
			return err
		}
	}
	if err := n.bridges(p); err != nil {
		return err
	}
	if p.taken { // a reload would wait for ever for a bridge that networkd did not make
		return n.host.Units.Restart(ctx, networkd)
	}
	if _, err := n.host.Exec.Run(ctx, sys.Command("networkctl", "reload")); err != nil {
		return fmt.Errorf("reloading systemd-networkd: %w", err)
	}
	names := p.renamed()
	if len(names) == 0 {
		return nil
	}
	if _, err := n.host.Exec.Run(ctx, sys.Command("networkctl", append([]string{"reconfigure"}, names...)...)); err != nil {
		return fmt.Errorf("having systemd-networkd set up the cards again: %w", err)
	}
	return nil
}

// renamed returns the cards that have another name now, and the devices that are up
// as long as one of these has a carrier: networkd looks for it by name, and only
// when it sets such a device up.
func (p Plan) renamed() (names []string) {
	for _, c := range p.cards {
		names = append(names, c.to)
	}
	for _, file := range slices.Sorted(maps.Keys(p.want)) {
		bound := slices.ContainsFunc(p.cards, func(c renaming) bool {
			return strings.Contains(p.want[file].Content, "\nBindCarrier="+c.to+"\n")
		})
		if device, ok := strings.CutSuffix(path.Base(file), ".network"); ok && bound {
			names = append(names, strings.TrimPrefix(device, prefix+"-"))
		}
	}
	return names
}

// bridges changes what networkd sets when it makes a bridge, and never again.
func (n *Network) bridges(p Plan) error {
	for _, name := range slices.Sorted(maps.Keys(p.want)) {
		content := p.want[name].Content
		bridge := strings.TrimPrefix(strings.TrimSuffix(path.Base(name), ".netdev"), prefix+"-")
		dir := "/sys/class/net/" + bridge + "/bridge"
		if !strings.Contains(content, "\nKind=bridge\n") || !n.host.Files.Exists(dir) {
			continue
		}
		for _, s := range []struct{ key, file string }{{"STP", "stp_state"}, {"MulticastSnooping", "multicast_snooping"}} {
			value := "0"
			if strings.Contains(content, "\n"+s.key+"=yes\n") {
				value = "1"
			}
			if err := n.put(dir+"/"+s.file, value); err != nil {
				return fmt.Errorf("changing bridge %s: %w", bridge, err)
			}
		}
	}
	return nil
}

// put writes to a file of the kernel unless it says so already.
func (n *Network) put(name, value string) error {
	if b, err := n.host.Files.ReadFile(name); err == nil && strings.TrimSpace(string(b)) == value {
		return nil
	}
	return n.host.Files.PutFile(name, []byte(value))
}

// setCards has udev set up the cards that have a file of ours.
func (n *Network) setCards(ctx context.Context, files map[string]File) error {
	args := []string{"trigger", "--action=add", "--subsystem-match=net"}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if card, ok := strings.CutSuffix(path.Base(name), ".link"); ok {
			args = append(args, "--sysname-match="+strings.TrimPrefix(card, prefix+"-"))
		}
	}
	if len(args) == 3 {
		return nil
	}
	for _, c := range []sys.Cmd{sys.Command("udevadm", "control", "--reload"), sys.Command("udevadm", args...)} {
		if _, err := n.host.Exec.Run(ctx, c); err != nil {
			return fmt.Errorf("setting up network cards: %w", err)
		}
	}
	return nil
}

// reset has a card set up as usual whose file, called name, goes away: without a
// file udev would leave it as it is.
func (n *Network) reset(ctx context.Context, name string) error {
	card, ok := strings.CutSuffix(path.Base(name), ".link")
	if !ok {
		return nil
	}
	b, err := n.host.Files.ReadFile(name)
	if err != nil {
		return fmt.Errorf("reading how a network card is set up: %w", err)
	}
	_, rest, _ := strings.Cut(string(b), "PermanentMACAddress=")
	mac, _, _ := strings.Cut(rest, "\n")
	neutral := File{Content: linkFile(mac, api.NetworkEthernet{})}
	if err := n.host.Files.WriteFile(name, []byte(neutral.Content), 0o644); err != nil {
		return fmt.Errorf("writing how a network card is set up: %w", err)
	}
	return n.setCards(ctx, map[string]File{path.Join(networkdDir, card+".link"): neutral})
}

// FlushDNS forgets the answers of name servers.
func (n *Network) FlushDNS(ctx context.Context) error {
	if _, err := n.host.Exec.Run(ctx, sys.Command("resolvectl", "flush-caches")); err != nil {
		return fmt.Errorf("flushing the cache of systemd-resolved: %w", err)
	}
	return nil
}
