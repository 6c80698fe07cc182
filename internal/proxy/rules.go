package proxy

import (
	"fmt"
	"path"
	"strings"

	"github.com/incusos/incusos/api"
)

// A way is how a destination is reached.
type way struct {
	name   string // of a proxy; "" is directly
	server api.NetworkProxyServer
}

func (w way) direct() bool { return w.name == "" }

// A refusedError says that a rule forbids a destination.
type refusedError struct{ host, rule string }

func (e *refusedError) Error() string {
	return fmt.Sprintf("the rule for %q lets nobody reach %s; see the proxy in the network configuration", e.rule, e.host)
}

// route returns the way to host, a name or an IP address without a port. The
// first rule that matches decides, and what no rule is about is reached
// directly.
func route(c api.NetworkProxy, host string) (way, error) {
	for _, r := range c.Way() {
		if matches(r.Destination, host) {
			return target(c, r, host)
		}
	}
	return way{}, nil
}

func target(c api.NetworkProxy, r api.NetworkProxyRule, host string) (way, error) {
	switch r.Target {
	case api.ProxyDirect:
		return way{}, nil
	case api.ProxyNone:
		return way{}, &refusedError{host, r.Destination}
	}
	server, ok := c.Servers[r.Target]
	if !ok {
		return way{}, fmt.Errorf("the rule for %q leads to the proxy %q, which there is not", r.Destination, r.Target)
	}
	return way{r.Target, server}, nil
}

// matches reports whether one of the patterns in destination, which "|"
// separates, is about host. "*" stands for any text, also with dots, and "?" for
// a character; neither case, nor a final dot, nor the brackets around an IPv6
// address matter.
func matches(destination, host string) bool {
	for pattern := range strings.SplitSeq(destination, "|") {
		if ok, err := path.Match(plain(pattern), plain(host)); err == nil && ok {
			return true
		}
	}
	return false
}

func plain(host string) string {
	host = strings.NewReplacer("[", "", "]", "", `\`, "").Replace(host) // what else means something to path.Match
	return strings.TrimSuffix(strings.ToLower(host), ".")
}
