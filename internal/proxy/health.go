package proxy

import (
	"log/slog"
	"maps"
	"slices"
	"sync"
)

// health is which proxies did as they were asked the last time. The zero health
// complains about none.
type health struct {
	mu     sync.Mutex
	failed map[string]error // by name
}

// note keeps how asking the proxy name ended, and says so if that is new.
func (h *health) note(name string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	was, failing := h.failed[name]
	switch {
	case name == "": // directly, which is nobody's doing
	case err == nil && failing:
		delete(h.failed, name)
		slog.Info("The proxy works again", "proxy", name)
	case err != nil:
		if h.failed == nil {
			h.failed = make(map[string]error)
		}
		h.failed[name] = err
		if !failing || was.Error() != err.Error() {
			slog.Warn("A proxy does not work", "proxy", name, "err", err)
		}
	}
}

// Warnings says which of the proxies that are configured did not do as they were
// asked the last time.
func (p *Proxy) Warnings() []string {
	servers := p.config().Servers
	p.upstream.mu.Lock()
	defer p.upstream.mu.Unlock()
	var all []string
	for _, name := range slices.Sorted(maps.Keys(p.upstream.failed)) {
		if _, ok := servers[name]; ok {
			all = append(all, p.upstream.failed[name].Error())
		}
	}
	return all
}
