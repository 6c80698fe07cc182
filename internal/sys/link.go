package sys

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// settle is how long Watch waits for further changes before it reports one.
const settle = 200 * time.Millisecond

type kernelLinks struct{}

func (kernelLinks) List() ([]Link, error) {
	devices, err := whole(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("listing network devices: %w", err)
	}
	addresses, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("listing network addresses: %w", err)
	}
	names, of := make(map[int]string), make(map[int][]string)
	for _, d := range devices {
		names[d.Attrs().Index] = d.Attrs().Name
	}
	for _, a := range addresses {
		if a.IP.IsGlobalUnicast() {
			of[a.LinkIndex] = append(of[a.LinkIndex], strings.ToLower(a.IPNet.String()))
		}
	}
	var links []Link
	for _, d := range devices {
		if a := d.Attrs(); a.Flags&net.FlagLoopback == 0 {
			l := describe(a)
			l.Master, l.Addresses = names[a.MasterIndex], of[a.Index]
			links = append(links, l)
		}
	}
	return links, nil
}

func describe(a *netlink.LinkAttrs) Link {
	l := Link{
		Name: a.Name, Hwaddr: a.HardwareAddr.String(), Current: a.HardwareAddr.String(), MTU: a.MTU,
		Enabled: a.Flags&net.FlagUp != 0,
		Up:      a.RawFlags&unix.IFF_RUNNING != 0 && a.Flags&net.FlagUp != 0,
	}
	_, err := os.Stat("/sys/class/net/" + a.Name + "/device")
	l.Physical = err == nil
	if l.Physical && len(a.PermHWAddr) == len(a.HardwareAddr) {
		l.Hwaddr = a.PermHWAddr.String()
	}
	return l
}

func (kernelLinks) Rename(name, to string) error {
	return change(name, "renaming it to "+to, func(l netlink.Link) error { return netlink.LinkSetName(l, to) })
}

func (kernelLinks) SetHwaddr(name, hwaddr string) error {
	mac, err := net.ParseMAC(hwaddr)
	if err != nil {
		return err
	}
	return change(name, "setting its MAC address", func(l netlink.Link) error {
		err := netlink.LinkSetHardwareAddr(l, mac)
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		// Some drivers change it while the card is down only.
		if err := netlink.LinkSetDown(l); err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetHardwareAddr(l, mac), netlink.LinkSetUp(l))
	})
}

func (kernelLinks) Delete(name string) error {
	err := change(name, "deleting it", netlink.LinkDel)
	if missing := (netlink.LinkNotFoundError{}); errors.As(err, &missing) {
		return nil
	}
	return err
}

func change(name, doing string, do func(netlink.Link) error) error {
	l, err := netlink.LinkByName(name)
	if err == nil {
		err = do(l)
	}
	if err != nil {
		return fmt.Errorf("network device %s: %s: %w", name, doing, err)
	}
	return nil
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
