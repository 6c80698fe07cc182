package proxy

import "github.com/incusos/incusos/api"

// A Config says which way leads where.
type Config struct {
	Servers map[string]Server // by name
	Rules   []Rule            // the first that matches decides
}

// A Server is a proxy of the operator's.
type Server struct {
	Host     string // with a port, or a URL
	UseTLS   bool
	Auth     string // "anonymous", "basic" or "kerberos"; "" is anonymous
	Realm    string // of Kerberos
	Username string
	Password api.Secret
}

// A Rule says which way leads to destinations.
type Rule struct {
	Destination string // patterns, separated by "|"
	Target      string // name of a server, "direct" or "none"
}
