package sys

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func (kernelLinks) Gateways() ([]Gateway, error) {
	routes, err := mainRoutes()
	if err != nil {
		return nil, fmt.Errorf("listing routes: %w", err)
	}
	var found []Gateway
	for _, r := range routes {
		if r.Gw == nil || !everywhere(r.Dst) {
			continue
		}
		link, err := net.InterfaceByIndex(r.LinkIndex)
		if err != nil {
			continue // it went away meanwhile
		}
		neighbours, err := whole(func() ([]netlink.Neigh, error) { return netlink.NeighList(r.LinkIndex, netlink.FAMILY_ALL) })
		if err != nil {
			return nil, fmt.Errorf("listing neighbours: %w", err)
		}
		found = append(found, Gateway{Link: link.Name, Address: r.Gw.String(), State: neighbourState(neighbours, r.Gw)})
	}
	return found, nil
}

func mainRoutes() ([]netlink.Route, error) {
	return whole(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	})
}

func (kernelLinks) Routes() ([]Route, error) {
	routes, err := mainRoutes()
	if err != nil {
		return nil, fmt.Errorf("listing routes: %w", err)
	}
	names := make(map[int]string)
	var found []Route
	for _, r := range routes {
		if r.Gw == nil {
			continue
		}
		if _, ok := names[r.LinkIndex]; !ok {
			link, err := net.InterfaceByIndex(r.LinkIndex)
			if err != nil {
				continue // it went away meanwhile
			}
			names[r.LinkIndex] = link.Name
		}
		found = append(found, Route{Link: names[r.LinkIndex], To: destination(r), Via: r.Gw.String()})
	}
	return found, nil
}

func destination(r netlink.Route) string {
	switch {
	case r.Dst != nil:
		return r.Dst.String()
	case r.Gw.To4() != nil:
		return "0.0.0.0/0"
	}
	return "::/0"
}

func everywhere(dst *net.IPNet) bool {
	if dst == nil {
		return true
	}
	ones, _ := dst.Mask.Size()
	return ones == 0
}

func neighbourState(neighbours []netlink.Neigh, ip net.IP) string {
	for _, n := range neighbours {
		if !n.IP.Equal(ip) {
			continue
		}
		switch n.State {
		case netlink.NUD_REACHABLE:
			return "reachable"
		case netlink.NUD_PERMANENT, netlink.NUD_NOARP:
			return "permanent"
		case netlink.NUD_STALE:
			return "stale"
		case netlink.NUD_DELAY, netlink.NUD_PROBE:
			return "probe"
		case netlink.NUD_INCOMPLETE:
			return "incomplete"
		case netlink.NUD_FAILED:
			return "failed"
		}
	}
	return "none"
}
