package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/incusos/incusos/internal/sys"
)

const (
	// resolvers lists the name servers in force, those of DHCP among them
	// (systemd-resolved.service(8)).
	resolvers = "/run/systemd/resolve/resolv.conf"
	// synced is there once the clock was set (systemd-timesyncd.service(8)); its
	// time is when that last happened.
	synced = "/run/systemd/timesync/synchronized"
	// resolverTime is how long a name server may take.
	resolverTime = 2 * time.Second
	// mostResolvers is how many of them are asked; resolved asks no more either.
	mostResolvers = 8
)

// Diagnose says in lines how far packets get: to the card, to the gateway, to a
// name server, and whether the clock is right. It asks for no name of anybody:
// of a name server it only wants to know whether it answers.
func (n *Network) Diagnose(ctx context.Context) []string {
	lines := n.diagnoseLinks(ctx)
	lines = append(lines, n.diagnoseResolvers(ctx)...)
	return append(lines, n.diagnoseClock(ctx)...)
}

func (n *Network) diagnoseLinks(ctx context.Context) (lines []string) {
	links, err := n.host.Links.List()
	if err != nil {
		return []string{err.Error()}
	}
	gateways, err := n.host.Links.Gateways()
	if err != nil {
		lines = append(lines, err.Error())
	}
	originals, _ := n.originals() // without them cards are called as they are now
	for _, l := range links {
		if !l.Physical && !slices.ContainsFunc(hostDevices(n.inForce()), func(d hostDevice) bool { return d.match == l.Name }) {
			continue // Incus' business
		}
		lines = append(lines, fmt.Sprintf("%s, %s: %s", called(l, originals), l.Hwaddr, carrier(l)), "  addresses: "+listed(l.Addresses, "none"))
		for _, g := range gateways {
			if g.Link == l.Name {
				lines = append(lines, fmt.Sprintf("  gateway %s: %s", g.Address, reached(g.State)))
			}
		}
	}
	if err := n.Health(ctx); err != nil {
		lines = append(lines, err.Error())
	}
	if len(gateways) == 0 {
		lines = append(lines, "gateway: none; only what is on the same network can be reached")
	}
	return lines
}

// called returns a device's name as the operator knows it.
func called(l sys.Link, originals map[string]string) string {
	if first := originals[l.Hwaddr]; l.Physical && first != "" && first != l.Name {
		return "card " + first
	}
	return strings.TrimPrefix(l.Name, "_v")
}

func carrier(l sys.Link) string {
	if l.Up {
		return "connected"
	}
	return "no carrier; check the cable and the switch"
}

func listed(words []string, none string) string {
	if len(words) == 0 {
		return none
	}
	return strings.Join(words, ", ")
}

// reached says in words what the kernel knows of a neighbour.
func reached(state string) string {
	switch state {
	case "reachable", "permanent":
		return "answers"
	case "stale", "probe":
		return "has answered, and is asked again when it is needed"
	case "failed", "incomplete":
		return "does not answer; check its address and the switch"
	}
	return "was not asked yet"
}

func (n *Network) diagnoseResolvers(ctx context.Context) []string {
	servers := n.resolvers()
	if len(servers) == 0 {
		return []string{"name servers: none; set dns.nameservers, or have DHCP name them"}
	}
	lines := make([]string, len(servers))
	var asked sync.WaitGroup
	for i, s := range servers {
		asked.Go(func() {
			verdict := "answers"
			if err := askResolver(ctx, net.JoinHostPort(s, n.port)); err != nil {
				verdict = "does not answer: " + err.Error()
			}
			lines[i] = "name server " + s + ": " + verdict
		})
	}
	asked.Wait()
	return lines
}

// resolvers returns the addresses of the name servers in force.
func (n *Network) resolvers() []string {
	b, err := n.host.Files.ReadFile(resolvers)
	if err != nil {
		return nil // resolved does not run, which its area says
	}
	return parseResolvers(string(b))
}

// parseResolvers returns the name servers of a resolv.conf(5).
func parseResolvers(text string) []string {
	var servers []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" || len(servers) == mostResolvers {
			continue
		}
		if _, err := netip.ParseAddr(fields[1]); err == nil && !slices.Contains(servers, fields[1]) {
			servers = append(servers, fields[1])
		}
	}
	return servers
}

// askResolver returns nil once the name server at address has answered anything.
func askResolver(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, resolverTime)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if _, err := conn.Write(question()); err != nil {
		return err
	}
	buf := make([]byte, 1500)
	for {
		size, err := conn.Read(buf)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("no answer in %v", resolverTime)
		case err != nil:
			return err
		case isAnswer(buf[:size]):
			return nil
		}
	}
}

// question asks for the name servers of the root, which every one knows or
// refuses to tell; either is an answer (RFC 1035, section 4.1).
func question() []byte {
	return []byte{
		0x49, 0x4f, // its number; nobody gains by guessing it
		0x01, 0x00, // recursion is fine
		0, 1, 0, 0, 0, 0, 0, 0, // one question
		0,    // the root
		0, 2, // NS
		0, 1, // IN
	}
}

// isAnswer reports whether b is an answer to question.
func isAnswer(b []byte) bool {
	return len(b) >= 12 && b[0] == 0x49 && b[1] == 0x4f && b[2]&0x80 != 0
}

func (n *Network) diagnoseClock(ctx context.Context) []string {
	if fi, err := n.host.Files.Stat(synced); err == nil {
		return []string{"clock: set by a time server, last at " + fi.ModTime().UTC().Format(time.DateTime) + " UTC"}
	}
	state, err := n.host.Units.State(ctx, timesyncd)
	if err != nil {
		return []string{"clock: " + err.Error()}
	}
	servers := listed(n.inForce().Time.NTPServers, "those of DHCP or of the image")
	return []string{fmt.Sprintf("clock: not set by a time server yet; %s is %s and asks %s", timesyncd, state, servers)}
}
