package api

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
)

// NetworkProxy says how this machine and what it runs reach servers for which
// there is no direct way. Without rules, everything goes by way of the first
// server in the order of names.
type NetworkProxy struct {
	Servers map[string]NetworkProxyServer `json:"servers,omitempty"` // by a name that rules use
	Rules   []NetworkProxyRule            `json:"rules,omitempty"`   // the first that fits counts; what fits none is reached directly
}

// A NetworkProxyServer is a proxy (RFC 9110, section 3.7).
type NetworkProxyServer struct {
	Host     string `json:"host"`               // host or host:port; the port is 3128 if it is left out. "http://" or "https://" may be before it
	UseTLS   bool   `json:"use_tls,omitempty"`  // the proxy itself is spoken to over TLS, as with "https://"
	Auth     string `json:"auth"`               // "anonymous", "basic" or "kerberos"
	Username string `json:"username,omitempty"` // for basic and kerberos
	Password Secret `json:"password,omitempty"` // for basic and kerberos
	Realm    string `json:"realm,omitempty"`    // for kerberos, such as "EXAMPLE.NET"
}

// A NetworkProxyRule says how hosts are reached.
type NetworkProxyRule struct {
	Destination string `json:"destination"` // a host, IP address, or pattern with "*" and "?" such as "*.example.net"; several are separated by "|"
	Target      string `json:"target"`      // the name of a server, "direct", or "none" to refuse
}

// What a rule may target besides servers.
const (
	ProxyDirect = "direct" // without a proxy
	ProxyNone   = "none"   // not at all
)

// Address returns the proxy as host:port, and whether it is spoken to over TLS.
func (s NetworkProxyServer) Address() (hostport string, tls bool) {
	rest, tls := s.Host, s.UseTLS
	if after, ok := strings.CutPrefix(rest, "https://"); ok {
		rest, tls = after, true
	}
	rest = strings.TrimSuffix(strings.TrimPrefix(rest, "http://"), "/")
	if host, port, err := net.SplitHostPort(rest); err == nil {
		return net.JoinHostPort(host, port), tls
	}
	return net.JoinHostPort(strings.Trim(rest, "[]"), proxyPort), tls
}

// Way returns the targets in force: those of the rules, or the one that stands for
// having none. It is empty if nothing goes by way of a proxy.
func (p NetworkProxy) Way() []NetworkProxyRule {
	if len(p.Rules) > 0 || len(p.Servers) == 0 {
		return p.Rules
	}
	return []NetworkProxyRule{{Destination: "*", Target: slices.Min(slices.Collect(maps.Keys(p.Servers)))}}
}

const (
	proxyPort   = "3128" // what proxies listen on if nobody says otherwise
	mostServers = 64
	mostRules   = 1024
)

func (p NetworkProxy) validate() error {
	if len(p.Servers) > mostServers {
		return Fieldf("proxy.servers", "are %d; want at most %d", len(p.Servers), mostServers)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Servers)) {
		if name == ProxyDirect || name == ProxyNone || name == "" || !only(name, "-_.") {
			return Fieldf("proxy.servers", "%q cannot name a server; want letters, digits, dots and dashes, and neither %s nor %s", name, ProxyDirect, ProxyNone)
		}
		if err := p.Servers[name].validate("proxy.servers." + name); err != nil {
			return err
		}
	}
	if len(p.Rules) > mostRules {
		return Fieldf("proxy.rules", "are %d; want at most %d", len(p.Rules), mostRules)
	}
	for i, r := range p.Rules {
		if err := p.validateRule(fmt.Sprintf("proxy.rules[%d]", i), r); err != nil {
			return err
		}
	}
	return nil
}

func (s NetworkProxyServer) validate(field string) error {
	if err := s.validateHost(field + ".host"); err != nil {
		return err
	}
	if err := oneOf(field+".auth", s.Auth, "anonymous", "basic", "kerberos"); err != nil {
		return err
	}
	for _, c := range []struct{ name, value, use string }{
		{"username", s.Username, "basic kerberos"}, {"password", string(s.Password), "basic kerberos"}, {"realm", s.Realm, "kerberos"},
	} {
		switch used := strings.Contains(c.use, s.Auth); {
		case used && c.value == "":
			return Fieldf(field+"."+c.name, "is missing; authentication %s needs it", s.Auth)
		case !used && c.value != "":
			return Fieldf(field+"."+c.name, "is not used by authentication %s; leave it out, or choose %s", s.Auth, strings.ReplaceAll(c.use, " ", " or "))
		case len(c.value) > 1024 || strings.ContainsFunc(c.value, func(r rune) bool { return r < ' ' || r == 0x7f }):
			return Fieldf(field+"."+c.name, "has control characters or is too long; want one line of at most 1024 bytes")
		}
	}
	if s.Auth == "basic" && strings.Contains(s.Username, ":") {
		return Fieldf(field+".username", "has a colon, which basic authentication cannot carry; want a name without")
	}
	if s.Realm != "" && !domain(s.Realm) {
		return Fieldf(field+".realm", "%q is no realm; want one such as %q", s.Realm, "EXAMPLE.NET")
	}
	return nil
}

func (s NetworkProxyServer) validateHost(field string) error {
	hostport, tls := s.Address()
	host, port, err := net.SplitHostPort(hostport)
	if n, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil || n == 0 || !isHost(host) {
		return Fieldf(field, "%q is no proxy; want a host with a port, such as %q", s.Host, "proxy.example.net:3128")
	}
	if strings.HasPrefix(s.Host, "http://") && tls {
		return Fieldf(field, "%q is without TLS while use_tls is set; want one of the two", s.Host)
	}
	return nil
}

func (p NetworkProxy) validateRule(field string, r NetworkProxyRule) error {
	if len(r.Destination) > 4096 {
		return Fieldf(field+".destination", "has %d bytes; want at most 4096", len(r.Destination))
	}
	for pattern := range strings.SplitSeq(r.Destination, "|") {
		if pattern == "" || !only(pattern, "-_.*?:[]") {
			return Fieldf(field+".destination", "%q is no host; want one such as %q", cmp.Or(pattern, r.Destination), "*.example.net")
		}
	}
	if _, ok := p.Servers[r.Target]; !ok && r.Target != ProxyDirect && r.Target != ProxyNone {
		return Fieldf(field+".target", "%q is no server in proxy.servers; want the name of one, %s or %s", r.Target, ProxyDirect, ProxyNone)
	}
	return nil
}
