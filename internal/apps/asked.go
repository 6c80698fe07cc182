package apps

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/incusos/incusos/internal/incus"
)

// version waits until Incus answers, at most for limit, and returns what it
// says it is. Its socket is there before it is: one request is enough.
func version(ctx context.Context, c *incus.Client, limit time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var server struct {
		Environment struct {
			ServerVersion string `json:"server_version"`
		} `json:"environment"`
	}
	if err := c.Do(ctx, http.MethodGet, "/1.0", nil, &server); err != nil {
		return "", fmt.Errorf("waiting for Incus: %w", err)
	}
	return server.Environment.ServerVersion, nil
}

// nobodyTrusted reports whether no certificate at all could log in.
func nobodyTrusted(ctx context.Context, c *incus.Client) (bool, error) {
	var certificates []string
	if err := c.Do(ctx, http.MethodGet, "/1.0/certificates", nil, &certificates); err != nil {
		return false, fmt.Errorf("listing who may log in: %w", err)
	}
	return len(certificates) == 0, nil
}
