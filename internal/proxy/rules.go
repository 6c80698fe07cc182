package proxy

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// A way is how a destination is reached.
type way struct {
	name   string // of a proxy; "" is directly
	server Server
}

func (w way) direct() bool { return w.name == "" }

// Targets of rules that are no proxies.
const (
	direct = "direct"
	none   = "none"
)

// A refusedError says that a rule forbids a destination.
type refusedError struct{ host, rule string }

func (e *refusedError) Error() string {
	return fmt.Sprintf("the rule for %q lets nobody reach %s; see the proxy in the network configuration", e.rule, e.host)
}

// route returns the way to host, a name or an IP address without a port. The
// first rule that matches decides, and what no rule is about is reached
// directly. Without rules everything goes over the first of the proxies by name.
func route(c Config, host string) (way, error) {
	for _, r := range c.Rules {
		if matches(r.Destination, host) {
			return target(c, r, host)
		}
	}
	if names := slices.Sorted(maps.Keys(c.Servers)); len(c.Rules) == 0 && len(names) > 0 {
		return way{names[0], c.Servers[names[0]]}, nil
	}
	return way{}, nil
}

func target(c Config, r Rule, host string) (way, error) {
	switch r.Target {
	case direct:
		return way{}, nil
	case none:
		return way{}, &refusedError{host, r.Destination}
	}
	server, ok := c.Servers[r.Target]
	if !ok {
		return way{}, fmt.Errorf("the rule for %q leads to the proxy %q, which there is not", r.Destination, r.Target)
	}
	return way{r.Target, server}, nil
}

// matches reports whether one of the patterns in destination, which "|"
// separates, is about host. "*" stands for any text, also with dots; neither
// case nor a final dot matters.
func matches(destination, host string) bool {
	for pattern := range strings.SplitSeq(destination, "|") {
		if ok, err := path.Match(plain(pattern), plain(host)); err == nil && ok {
			return true
		}
	}
	return false
}

func plain(host string) string {
	return strings.TrimSuffix(strings.ToLower(strings.TrimSpace(host)), ".")
}
