// Package network makes the machine's network match an api.NetworkConfig.
//
// The work is split so that the difficult parts need no machine:
//
//	Render   turns a configuration into files of systemd-networkd,
//	         systemd-resolved and systemd-timesyncd        (pure)
//	Plan     compares those files with the ones in place   (reads only)
//	Apply    writes what differs and tells the services    (side effects)
//	State    reports the network cards, whoever set them up
//	Missing  complains about those that are wanted and not there
//	Diagnose says how far packets get
//
// All files live below /run/systemd and are rebuilt on every boot: the saved
// configuration is the only source of truth. Files not named 20-incus-os*
// belong to the image and are never touched. The digest of what each service
// last accepted is kept in /run/incus-os, so that a reload that did not work is
// tried again.
//
// The hostname and the time zone are in the same document but belong to
// internal/host. Bridges, firewall rules and instances belong to Incus.
package network

import (
	"context"
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

const (
	networkd  = "systemd-networkd.service"
	resolved  = "systemd-resolved.service"
	timesyncd = "systemd-timesyncd.service"

	networkdDir  = "/run/systemd/network"
	resolvedDir  = "/run/systemd/resolved.conf.d"
	timesyncdDir = "/run/systemd/timesyncd.conf.d"

	prefix = "20-incus-os"
	stamps = "/run/incus-os/network." // followed by the service that accepted
)

// A Network brings one machine's network to a desired configuration.
type Network struct {
	host    sys.Host
	inForce func() api.NetworkConfig
	port    string // of name servers
}

// New returns the network of host. InForce returns the configuration that was
// applied last, which State and Missing are about.
func New(host sys.Host, inForce func() api.NetworkConfig) *Network {
	return &Network{host, inForce, "53"}
}

// Name is the area's name in health reports.
func (n *Network) Name() string { return "network" }

// A Plan is the difference between the machine and a configuration. The zero
// Plan means that there is nothing to do.
type Plan struct {
	Write  map[string]string // path to new content
	Remove []string          // paths
	Tell   []string          // units that have not accepted these files yet

	digests map[string]string // what the files of Tell amount to
}

// Empty reports whether the machine already matches.
func (p Plan) Empty() bool { return len(p.Write) == 0 && len(p.Remove) == 0 && len(p.Tell) == 0 }

// String lists the steps, one a line, for logs and for ?dry-run.
func (p Plan) String() string {
	var b strings.Builder
	for _, name := range p.Remove {
		fmt.Fprintf(&b, "remove %s\n", name)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Write)) {
		fmt.Fprintf(&b, "write %s\n", name)
	}
	for _, unit := range p.Tell {
		fmt.Fprintf(&b, "reload %s\n", unit)
	}
	return b.String()
}

// Steps are what there is to do, as people are told. A network that is set up
// anew may lose connections, the one that asked for it among them.
func (p Plan) Steps() (steps api.Plan) {
	for _, name := range p.Remove {
		steps.Do("remove", name)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Write)) {
		steps.Do("write", name)
	}
	for _, unit := range p.Tell {
		risk := ""
		if unit == networkd {
			risk = "connections may end"
		}
		steps.Risk("reload", unit, risk)
	}
	return steps
}

// Plan reports what Apply would have to do to reach cfg. It changes nothing.
func (n *Network) Plan(cfg api.NetworkConfig) (Plan, error) {
	want := Render(cfg)
	have, err := n.observe()
	if err != nil {
		return Plan{}, err
	}
	p := Plan{Write: maps.Clone(want), digests: make(map[string]string)}
	for name, content := range have {
		switch now, ok := want[name]; {
		case !ok:
			p.Remove = append(p.Remove, name)
		case now == content:
			delete(p.Write, name)
		}
	}
	slices.Sort(p.Remove)
	err = n.planTell(&p, want)
	return p, err
}

// planTell adds to p the services that last accepted something other than
// want, or whose files are about to change.
func (n *Network) planTell(p *Plan, want map[string]string) error {
	touched := append(slices.Collect(maps.Keys(p.Write)), p.Remove...)
	for _, unit := range []string{networkd, resolved, timesyncd} {
		dir := directory(unit)
		now := digest(want, dir)
		accepted, err := n.accepted(unit)
		if err != nil {
			return err
		}
		changes := slices.ContainsFunc(touched, func(name string) bool { return path.Dir(name) == dir })
		if changes || accepted != now {
			p.Tell = append(p.Tell, unit)
			p.digests[unit] = now
		}
	}
	return nil
}

func directory(unit string) string {
	switch unit {
	case resolved:
		return resolvedDir
	case timesyncd:
		return timesyncdDir
	}
	return networkdDir
}

// accepted returns the digest of the files unit last read. Before the first
// time that is the digest of no files.
func (n *Network) accepted(unit string) (string, error) {
	b, err := n.host.Files.ReadFile(stamps + unit)
	if errors.Is(err, fs.ErrNotExist) {
		return digest(nil, ""), nil
	}
	if err != nil {
		return "", fmt.Errorf("reading what %s accepted: %w", unit, err)
	}
	return string(b), nil
}

// observe returns our files in place, path to content.
func (n *Network) observe() (map[string]string, error) {
	have := make(map[string]string)
	for _, dir := range []string{networkdDir, resolvedDir, timesyncdDir} {
		entries, err := n.host.Files.ReadDir(dir)
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
			name := path.Join(dir, e.Name())
			b, err := n.host.Files.ReadFile(name)
			if err != nil {
				return nil, fmt.Errorf("reading the network files in place: %w", err)
			}
			have[name] = string(b)
		}
	}
	return have, nil
}

// Apply makes the machine match cfg. It is idempotent: applying the same
// configuration twice tells no service the second time. After an error the
// machine may be half way, and applying any configuration again repairs it.
func (n *Network) Apply(ctx context.Context, cfg api.NetworkConfig) error {
	p, err := n.Plan(cfg)
	if err != nil {
		return err
	}
	for _, name := range p.Remove {
		if err := n.host.Files.Remove(name); err != nil {
			return fmt.Errorf("removing a network file: %w", err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Write)) {
		if err := n.open(path.Dir(name)); err != nil {
			return err
		}
		if err := n.host.Files.WriteFile(name, []byte(p.Write[name]), 0o644); err != nil {
			return fmt.Errorf("writing a network file: %w", err)
		}
	}
	for _, unit := range p.Tell {
		if err := n.tell(ctx, unit); err != nil {
			return err
		}
		if err := n.host.Files.WriteFile(stamps+unit, []byte(p.digests[unit]), 0o644); err != nil {
			return fmt.Errorf("recording what %s accepted: %w", unit, err)
		}
	}
	return nil
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
// reloads; the other two have nothing to lose and are started anew.
func (n *Network) tell(ctx context.Context, unit string) error {
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
		return n.reload(ctx)
	}
	if err := n.host.Units.Stop(ctx, unit); err != nil {
		return err
	}
	return n.host.Units.Start(ctx, unit)
}

// reload waits for a networkd that is just starting, since it may have read its
// files before they were written.
func (n *Network) reload(ctx context.Context) error {
	if err := n.host.Units.Start(ctx, networkd); err != nil {
		return err
	}
	if _, err := n.host.Exec.Run(ctx, sys.Command("networkctl", "reload")); err != nil {
		return fmt.Errorf("reloading systemd-networkd: %w", err)
	}
	return nil
}

// digest sums up the files that lie in dir.
func digest(files map[string]string, dir string) string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if path.Dir(name) == dir {
			fmt.Fprintf(h, "%s\x00%s\x00", name, files[name])
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}
