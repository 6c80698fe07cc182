package systest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/incusos/incusos/internal/sys"
)

// Links is a set of network devices that tests change.
type Links struct {
	mu        sync.Mutex
	links     []sys.Link
	gateways  []sys.Gateway
	routes    []sys.Route
	wireguard map[string]sys.Wireguard
	peers     map[string]string // the other end of a pair, both ways
	changed   chan struct{}
}

func newLinks(m Machine) *Links {
	return &Links{links: m.links(), wireguard: make(map[string]sys.Wireguard), peers: make(map[string]string), changed: make(chan struct{}, 1)}
}

// SetGateways replaces the gateways.
func (l *Links) SetGateways(gateways ...sys.Gateway) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gateways = gateways
}

// SetRoutes replaces the routes.
func (l *Links) SetRoutes(routes ...sys.Route) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.routes = routes
}

// SetWireguard says what the kernel knows of a tunnel.
func (l *Links) SetWireguard(name string, w sys.Wireguard) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wireguard[name] = w
}

// Set replaces the devices and tells watchers.
func (l *Links) Set(links ...sys.Link) {
	for i := range links {
		links[i].Current = cmp.Or(links[i].Current, links[i].Hwaddr)
	}
	l.update(func() { l.links = links })
}

// update changes the devices and tells watchers.
func (l *Links) update(do func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	do()
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// Get returns the device called name.
func (l *Links) Get(name string) (sys.Link, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := l.index(name); i >= 0 {
		return l.links[i], true
	}
	return sys.Link{}, false
}

func (l *Links) index(name string) int {
	return slices.IndexFunc(l.links, func(d sys.Link) bool { return d.Name == name })
}

// List implements sys.Links.
func (l *Links) List() ([]sys.Link, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.links), nil
}

// Gateways implements sys.Links.
func (l *Links) Gateways() ([]sys.Gateway, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.gateways), nil
}

// Routes implements sys.Links.
func (l *Links) Routes() ([]sys.Route, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.routes), nil
}

// Wireguard implements sys.Links.
func (l *Links) Wireguard(name string) (sys.Wireguard, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w, ok := l.wireguard[name]
	if !ok {
		return sys.Wireguard{}, fmt.Errorf("%s is no tunnel", name)
	}
	return w, nil
}

// Rename implements sys.Links. As with the kernel, a name is there once.
func (l *Links) Rename(name, to string) error {
	if _, taken := l.Get(to); taken {
		return fmt.Errorf("network device %s: there is a %s already", name, to)
	}
	return l.change(name, func(d *sys.Link) { d.Name = to })
}

// SetHwaddr implements sys.Links.
func (l *Links) SetHwaddr(name, hwaddr string) error {
	return l.change(name, func(d *sys.Link) { d.Current = hwaddr })
}

func (l *Links) change(name string, do func(*sys.Link)) error {
	if _, ok := l.Get(name); !ok {
		return fmt.Errorf("there is no network device %s", name)
	}
	l.update(func() { do(&l.links[l.index(name)]) })
	return nil
}

// Delete implements sys.Links. Ports of what goes away are free, and the other end
// of a pair goes with it.
func (l *Links) Delete(name string) error {
	l.update(func() {
		l.links = slices.DeleteFunc(slices.Clone(l.links), func(d sys.Link) bool { return (d.Name == name || d.Name == l.peers[name]) && !d.Physical })
		for i := range l.links {
			if l.links[i].Master == name {
				l.links[i].Master = ""
			}
		}
	})
	return nil
}

// Watch implements sys.Links.
func (l *Links) Watch(context.Context) (<-chan struct{}, error) { return l.changed, nil }
