package daemon

import (
	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/proxy"
)

// ProxyAddress is where a real machine serves the way out. Incus has it in its
// environment.
const ProxyAddress = proxy.Address

// wireProxy returns the way out of a machine, which is part of the network's
// document: what is in force of that, on trial or not, counts from the next
// request on.
func wireProxy(networks networkArea) *proxy.Proxy {
	return proxy.New(func() api.NetworkProxy { return networks.Manager.Config().Proxy })
}
