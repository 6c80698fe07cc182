package sys

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
)

// settle is how long Watch waits for further changes before it reports one.
const settle = 200 * time.Millisecond

type kernelLinks struct{}

func (kernelLinks) List() ([]Link, error) {
	ifaces, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("listing network devices: %w", err)
	}
	var links []Link
	for _, i := range ifaces {
		if i.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			return nil, fmt.Errorf("listing the addresses of %s: %w", i.Name, err)
		}
		_, err = os.Stat("/sys/class/net/" + i.Name + "/device")
		links = append(links, Link{
			Name:      i.Name,
			Hwaddr:    i.HardwareAddr.String(),
			MTU:       i.MTU,
			Up:        i.Flags&net.FlagRunning != 0,
			Physical:  err == nil,
			Addresses: global(addrs),
		})
	}
	return links, nil
}

func global(addrs []net.Addr) []string {
	var out []string
	for _, a := range addrs {
		if ip, _, err := net.ParseCIDR(a.String()); err == nil && ip.IsGlobalUnicast() {
			out = append(out, strings.ToLower(a.String()))
		}
	}
	return out
}

func (kernelLinks) Watch(ctx context.Context) (<-chan struct{}, error) {
	addrs, links := make(chan netlink.AddrUpdate), make(chan netlink.LinkUpdate)
	if err := netlink.AddrSubscribe(addrs, ctx.Done()); err != nil {
		return nil, fmt.Errorf("watching network addresses: %w", err)
	}
	if err := netlink.LinkSubscribe(links, ctx.Done()); err != nil {
		return nil, fmt.Errorf("watching network devices: %w", err)
	}
	out := make(chan struct{}, 1)
	go coalesce(ctx, addrs, links, out)
	return out, nil
}

// coalesce reports a burst of updates once, when it is over. The subscriptions
// close their channels when ctx ends.
func coalesce(ctx context.Context, addrs <-chan netlink.AddrUpdate, links <-chan netlink.LinkUpdate, out chan<- struct{}) {
	var quiet <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-addrs:
			if !ok {
				return
			}
			quiet = time.After(settle)
		case _, ok := <-links:
			if !ok {
				return
			}
			quiet = time.After(settle)
		case <-quiet:
			quiet = nil
			select {
			case out <- struct{}{}:
			default: // the last one has not been looked at yet
			}
		}
	}
}
