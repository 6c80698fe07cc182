// Package listener is the way to the API for when Incus cannot answer.
//
// Otherwise Incus is the only way in. While it is down for longer than it takes
// to start, and as soon as somebody is trusted to come, the listener serves the
// same API on the network itself, and stops when Incus answers again.
//
//	listener.go  the area: what is wanted of it, and what it is
//	watch.go     whether Incus answers, and opening and closing accordingly
//	serve.go     TLS, and who is let in
//	identity.go  the certificate that the machine shows
//	seeded.go    who is trusted at first
//
// Whether Incus is well is told by its unit, and by whoever brings the
// applications up. What is served is package rest's, by way of daemon.
package listener

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

// everywhere is where it listens unless it is told otherwise: where clients look
// for Incus.
const everywhere = "[::]:8443"

// Options are what a Listener needs from others.
type Options struct {
	// Mark returns the context of a request of which the path began with prefix,
	// and which came from who.
	Mark func(ctx context.Context, prefix, who string) context.Context
	// News is told, and must not wait, when the listener was opened or closed.
	News func()
}

// A Listener is the fallback listener of one machine. Its methods may be called
// from several goroutines.
type Listener struct {
	// Patience is how long Incus may not answer before the listener opens; ten
	// times that while the machine starts. It may be changed before the listener
	// is used.
	Patience time.Duration

	host sys.Host
	mark func(ctx context.Context, prefix, who string) context.Context
	news func()
	wake chan struct{} // looked at by Serve

	turn    sync.Mutex   // held while opening and closing
	handler http.Handler // nil while nobody serves
	old     []*opening   // do not listen any more, and end when Incus answers
	ending  sync.WaitGroup

	mu       sync.Mutex // guards what follows; never held while waiting
	config   api.SystemFallbackListenerConfig
	trusted  map[string]bool // SHA-256 of certificates
	health   health
	degraded bool     // the applications could not be brought up
	reported bool     // somebody has tried to
	open     *opening // nil while it is closed
	failure  error    // why it is not open although it should be
}

// New returns the listener of host, closed.
func New(host sys.Host, o Options) *Listener {
	l := &Listener{Patience: 30 * time.Second, host: host, mark: o.Mark, news: o.News, wake: make(chan struct{}, 1)}
	if l.news == nil {
		l.news = func() {}
	}
	return l
}

// Name is the area's name in health reports.
func (*Listener) Name() string { return "fallback listener" }

// Plan says what Apply would change. It changes nothing.
func (l *Listener) Plan(_ context.Context, config api.SystemFallbackListenerConfig) (p api.Plan, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old, next := address(l.config), address(config)
	switch was, will := enabled(l.config), enabled(config); {
	case was && !will:
		p.Risk("give up", "the fallback listener on "+old, "no way in while Incus does not answer")
	case !was && will:
		p.Do("listen", "on "+next+" while Incus does not answer")
	case was && will && old != next:
		p.Risk("move", "the fallback listener from "+old+" to "+next, l.loss())
	}
	for _, f := range fingerprints(config) {
		if !l.trusted[f] {
			p.Do("trust", "the client certificate "+f)
		}
	}
	wanted := fingerprints(config)
	for _, f := range fingerprints(l.config) {
		if !slices.Contains(wanted, f) {
			p.Risk("distrust", "the client certificate "+f, l.loss())
		}
	}
	return p, nil
}

// loss is what a change costs whoever is connected. The caller holds mu.
func (l *Listener) loss() string {
	if l.open == nil {
		return ""
	}
	return "connections to it end"
}

// Apply makes config the one in force, and opens or closes the listener if that
// is due. After an error it can be called again.
func (l *Listener) Apply(ctx context.Context, config api.SystemFallbackListenerConfig) error {
	l.mu.Lock()
	l.config, l.trusted = config, make(map[string]bool)
	for _, f := range fingerprints(config) {
		l.trusted[f] = true
	}
	l.mu.Unlock()
	_, err := l.look(ctx)
	l.again() // when the next look is due may have changed
	return err
}

// Applications tells the listener how bringing the applications up ended.
func (l *Listener) Applications(err error) {
	l.mu.Lock()
	l.degraded, l.reported = err != nil, true
	l.mu.Unlock()
	l.again()
}

// again has Serve look soon.
func (l *Listener) again() {
	select {
	case l.wake <- struct{}{}:
	default: // it will anyway
	}
}

// State is what there is to see of the listener.
func (l *Listener) State() api.SystemFallbackListenerState {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		return api.SystemFallbackListenerState{}
	}
	return api.SystemFallbackListenerState{Active: true, Address: l.open.address, Fingerprint: l.open.fingerprint}
}

// Warnings says that the listener is open, with what one needs to use it.
func (l *Listener) Warnings() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.open != nil:
		return []string{"Incus does not answer; trusted clients find this API at https://" + l.open.address + "/os, with the certificate " + l.open.fingerprint}
	case l.failure != nil:
		return []string{"Incus does not answer, and neither can the fallback listener: " + l.failure.Error()}
	}
	return nil
}

func enabled(c api.SystemFallbackListenerConfig) bool { return len(c.TrustedClientCertificates) > 0 }

func address(c api.SystemFallbackListenerConfig) string { return cmp.Or(c.ListenAddress, everywhere) }
