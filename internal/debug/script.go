package debug

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

const (
	// supportCertificate is part of the image, which the machine checks on
	// every read. An image without it runs no scripts.
	supportCertificate = "/usr/lib/incus-os/support.crt"

	// scriptPatience is how long a script may run.
	scriptPatience = 5 * time.Minute
	// maxScriptOutput is how much of what it prints is returned, in bytes.
	maxScriptOutput = 1 << 20
)

// Script runs a script that the support key signed, by sh as root, and returns
// what it printed. It is ended when ctx is.
func (d *Debug) Script(ctx context.Context, message []byte) (string, error) {
	support, err := d.support()
	if err != nil {
		return "", err
	}
	script, err := signedText(message, support)
	if err != nil {
		return "", api.Errorf(api.Forbidden, "the script is not run: %v", err)
	}
	slog.WarnContext(ctx, "Running a script that the support key signed", "sha256", fmt.Sprintf("%x", sha256.Sum256(script)))
	ctx, cancel := context.WithTimeout(ctx, scriptPatience)
	defer cancel()
	out := &printed{}
	cmd := sys.Command("sh", "-s")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(script), out, out
	if _, err := d.host.Exec.Run(ctx, cmd); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("it was ended after %v", scriptPatience)
		}
		return "", fmt.Errorf("running the script: %w\n%s", err, out)
	}
	return out.String(), nil
}

// support returns the certificate of the support key.
func (d *Debug) support() (*x509.Certificate, error) {
	b, err := d.host.Files.ReadFile(supportCertificate)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, api.Errorf(api.Unsupported, "this image was built without a support key, so that no script can be run on it")
	}
	if err != nil {
		return nil, fmt.Errorf("reading the certificate of the support key: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("%s is not in PEM", supportCertificate)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", supportCertificate, err)
	}
	return cert, nil
}

// printed keeps the beginning of what a program prints.
type printed struct {
	mu   sync.Mutex
	b    bytes.Buffer
	over bool
}

// Write implements io.Writer.
func (p *printed) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	left := maxScriptOutput - p.b.Len()
	p.over = p.over || len(b) > left
	p.b.Write(b[:min(left, len(b))])
	return len(b), nil
}

// String returns what was kept.
func (p *printed) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return p.b.String() + fmt.Sprintf("\n(the output is longer than %d MiB and cut here)\n", maxScriptOutput>>20)
	}
	return p.b.String()
}
