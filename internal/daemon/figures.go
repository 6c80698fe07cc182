package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/incusos/incusos/internal/metrics"
)

// MetricsAddress is where Incus looks for figures of the system, which it puts
// behind its own.
const MetricsAddress = "127.0.0.1:9100"

// A figureServer serves the figures. It is no area: the machine is as well
// without, so that it only warns when it cannot.
type figureServer struct {
	address string
	figures *metrics.Metrics

	mu     sync.Mutex
	server *http.Server // nil: not yet
	err    error        // why not
}

// Name implements Area.
func (f *figureServer) Name() string { return "metrics" }

// Reconcile implements Area: it begins to serve if that did not work so far.
func (f *figureServer) Reconcile(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.server != nil {
		return nil
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", f.address)
	if err != nil {
		if f.err == nil {
			slog.WarnContext(ctx, "Cannot serve figures", "err", err)
		}
		f.err = err
		return nil
	}
	f.err = nil
	f.server = &http.Server{Handler: f.figures, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	go f.serve(f.server, listener)
	slog.InfoContext(ctx, "Serving figures", "address", listener.Addr().String())
	return nil
}

// serve serves until stop. If that ends by itself, Reconcile begins anew.
func (f *figureServer) serve(server *http.Server, listener net.Listener) {
	err := server.Serve(listener)
	if errors.Is(err, http.ErrServerClosed) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.server, f.err = nil, err
}

// stop ends serving, and whatever request is under way.
func (f *figureServer) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.server != nil {
		_ = f.server.Close() // nobody is told
	}
}

// warnings says that figures are not served, if so.
func (f *figureServer) warnings() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		return nil
	}
	return []string{fmt.Sprintf("figures for Incus and Prometheus are not served: %v", f.err)}
}
