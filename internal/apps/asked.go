package apps

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/incusos/incusos/internal/incus"
)

const (
	// lookEvery is how often to look whether Incus waits for others, while it does not
	// answer, and lookTime how long it may take to say so.
	lookEvery, lookTime = 5 * time.Second, 10 * time.Second
)

// version waits until Incus answers, at most for limit, and returns what it
// says it is. Its socket is there before it is: one request is enough. It is an
// incus.AheadError if Incus does not answer since it waits for other members of its
// cluster.
func version(ctx context.Context, c *incus.Client, limit time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go watch(ctx, c, stop)
	var server struct {
		Environment struct {
			ServerVersion string `json:"server_version"`
		} `json:"environment"`
	}
	err := c.Do(ctx, http.MethodGet, "/1.0", nil, &server)
	if err == nil {
		return server.Environment.ServerVersion, nil
	}
	if incus.Starting(err) {
		stop(ahead(ctx, c))
	}
	if waits, ok := errors.AsType[*incus.AheadError](context.Cause(ctx)); ok {
		return "", waits
	}
	return "", fmt.Errorf("waiting for Incus: %w", err)
}

// watch stops the waiting for Incus when that waits for others itself.
func watch(ctx context.Context, c *incus.Client, stop func(error)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(lookEvery):
			if err := ahead(ctx, c); err != nil {
				stop(err)
			}
		}
	}
}

// ahead is an incus.AheadError if Incus waits for others, and nil if not or if nobody can
// tell: it may have just been started.
func ahead(ctx context.Context, c *incus.Client) error {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	if waits, ok := errors.AsType[*incus.AheadError](c.Ahead(ctx)); ok {
		return waits
	}
	return nil
}

// nobodyTrusted reports whether no certificate at all could log in.
func nobodyTrusted(ctx context.Context, c *incus.Client) (bool, error) {
	var certificates []string
	if err := c.Do(ctx, http.MethodGet, "/1.0/certificates", nil, &certificates); err != nil {
		return false, fmt.Errorf("listing who may log in: %w", err)
	}
	return len(certificates) == 0, nil
}
