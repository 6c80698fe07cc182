package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/incusos/incusos/internal/rest"
)

const (
	runDir        = "/run/incus-os"
	defaultSocket = runDir + "/unix.socket"
)

// serve serves the API. If that ends before it is stopped, fail is told why.
func (d *Daemon) serve(ctx context.Context, fail func(error)) (*http.Server, error) {
	files := d.Host.Files // the early boot may have made the directory, with another mode
	if err := errors.Join(files.MkdirAll(runDir, 0o700), os.Chmod(files.Path(runDir), 0o700)); err != nil {
		return nil, fmt.Errorf("making the directory of the API's socket: %w", err)
	}
	socket := d.Socket
	if socket == "" {
		socket = files.Path(defaultSocket)
	}
	listener, err := listen(ctx, socket)
	if err != nil {
		return nil, fmt.Errorf("serving the API: %w", err)
	}
	srv := &http.Server{
		Handler:           rest.Handler(d.Machine),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       5 * time.Minute,
	}
	go func() {
		if err := srv.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			fail(fmt.Errorf("serving the API: %w", err))
		}
	}()
	return srv, nil
}

// stop lets requests in progress end, for five seconds.
func stop(srv *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		slog.Warn("Requests were cut off", "err", errors.Join(err, srv.Close()))
	}
}

// listen takes over the socket of a daemon that is gone, but not of one that
// still answers. Only root can get at it.
func listen(ctx context.Context, socket string) (net.Listener, error) {
	if conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket); err == nil {
		return nil, errors.Join(fmt.Errorf("%s is in use; is another incus-osd running?", socket), conn.Close())
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}
