package daemon

import (
	"context"
	"errors"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/change"
	"github.com/incusos/incusos/internal/console"
	"github.com/incusos/incusos/internal/listener"
	"github.com/incusos/incusos/internal/rest"
	"github.com/incusos/incusos/internal/sys"
)

// fallbackListener returns the way to the API for when Incus cannot answer, as a
// resource and an area, and as what serves.
func fallbackListener(m sys.Host, screen *console.Console, news chan struct{}, doc document[api.SystemFallbackListenerConfig], gate *change.Gate,
) (*managed[api.SystemFallbackListener, api.SystemFallbackListenerConfig], *listener.Listener) {
	var l *listener.Listener
	l = listener.New(m, listener.Options{
		Mark: func(ctx context.Context, prefix, who string) context.Context {
			return rest.WithWho(rest.WithPrefix(ctx, prefix), who)
		},
		News: func() {
			// An area may keep the loop for minutes, in which somebody looks at
			// the screen for a way in.
			if s := l.State(); s.Active {
				screen.Say("the API is at https://%s/os, with the certificate %s", s.Address, s.Fingerprint)
			}
			poke(news)
		},
	})
	return manage("system/fallback-listener", doc, l, gate, func(_ context.Context, config api.SystemFallbackListenerConfig) (api.SystemFallbackListener, error) {
		return api.SystemFallbackListener{Config: config, State: l.State()}, nil
	}), l
}

// A reported area tells somebody how it fares.
type reported struct {
	Area
	tell func(error)
}

// Reconcile implements Area. What was cut short because the daemon stops says
// nothing.
func (r reported) Reconcile(ctx context.Context) error {
	err := r.Area.Reconcile(ctx)
	if !errors.Is(ctx.Err(), context.Canceled) {
		r.tell(err)
	}
	return err
}
