package service

import (
	"context"

	"github.com/incusos/incusos/api"
)

// absent is a service that Debian has no package of. Its document can be read and
// kept, and not enabled.
type absent[C config] struct {
	form func(C, api.ServiceState) any
}

func newAbsent[C config](form func(C, api.ServiceState) any) absent[C] { return absent[C]{form} }

func (absent[C]) steps(context.Context, C, bool) ([]step, error) { return nil, nil }
func (absent[C]) check(C) error                                  { return nil }
func (absent[C]) refresh(context.Context, C)                     {}
func (a absent[C]) document(c C, state api.ServiceState) any     { return a.form(c, state) }

func linstorDocument(c api.ServiceLinstorConfig, state api.ServiceState) any {
	return api.ServiceLinstor{Config: c, State: state}
}

func netbirdDocument(c api.ServiceNetbirdConfig, state api.ServiceState) any {
	return api.ServiceNetbird{Config: c, State: state}
}

func tailscaleDocument(c api.ServiceTailscaleConfig, state api.ServiceState) any {
	return api.ServiceTailscale{Config: c, State: state}
}
