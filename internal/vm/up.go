package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// UpOptions say which machine Up brings up.
type UpOptions struct {
	Options
	Dir string // of the machine, its medium and the client certificate
	// Medium writes the image of an install medium with the seed in a
	// directory to a file.
	Medium func(ctx context.Context, seed, file string) error
	// Progress is told what is going on and how long after the start.
	Progress func(at time.Duration, text string)
}

// A Site is a machine that is up, and the way to its Incus.
type Site struct {
	*Running
	Identity Identity
	URL      string
}

// Timeouts as with KVM. They are for what hangs, not for what is slow.
const (
	installTime = 2 * time.Minute
	bootTime    = time.Minute
	offTime     = 15 * time.Second
)

// handshakeTime ends an attempt to reach a guest that does not listen yet:
// QEMU's network accepts every connection and drops it when the guest says no,
// if it says anything.
const handshakeTime = 20 * time.Second

// Up brings up the machine in a directory: the first time it installs itself
// from a medium made for it, after that it boots from its disk. The machine
// outlives ctx and ends with Running.Stop or Site.Down.
func Up(ctx context.Context, o UpOptions) (*Site, error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	o.Dir = dir
	id, err := OpenIdentity(filepath.Join(dir, "client"))
	if err != nil {
		return nil, err
	}
	m, b, err := o.machine(ctx, id)
	if err != nil {
		return nil, err
	}
	r, err := m.Start(context.WithoutCancel(ctx), b)
	if err != nil {
		return nil, err
	}
	s := &Site{r, id, fmt.Sprintf("https://127.0.0.1:%d", r.Port)}
	if err := s.follow(ctx, m, b, o.Progress); err != nil {
		r.Stop()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("interrupted before the machine was up: %w", context.Cause(ctx))
		}
		return nil, fmt.Errorf("%w\nthe whole console is in %s; remove %s to start over", err, m.path(serialLog), o.Dir)
	}
	return s, nil
}

// installedFile stands for a disk that the installer has finished.
const installedFile = "installed"

// machine returns the machine and how to boot it. One that was left in the
// middle of its installation begins anew.
func (o UpOptions) machine(ctx context.Context, id Identity) (*Machine, Boot, error) {
	if _, err := os.Stat(filepath.Join(o.Dir, installedFile)); err == nil {
		m, err := Open(o.Dir, o.Options)
		return m, Boot{}, err
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, Boot{}, err
	}
	if err := Remove(o.Dir); err != nil {
		return nil, Boot{}, err
	}
	m, err := Create(o.Dir, o.Options)
	if err != nil {
		return nil, Boot{}, err
	}
	seed, file := m.path("seed"), m.path("medium.raw")
	if err := WriteSeed(seed, id.PEM); err != nil {
		return nil, Boot{}, err
	}
	o.Progress(0, "making an install medium")
	if err := o.Medium(ctx, seed, file); err != nil {
		return nil, Boot{}, fmt.Errorf("making the install medium: %w", err)
	}
	return m, Boot{Medium: file}, nil
}

// follow watches the machine until its Incus answers.
func (s *Site) follow(ctx context.Context, m *Machine, b Boot, progress func(time.Duration, string)) error {
	progress(0, fmt.Sprintf("starting with %s", s.Accel))
	defer s.report(ctx, progress)()
	if b.Medium != "" {
		if err := s.Install(ctx); err != nil {
			return err
		}
		if err := os.WriteFile(m.path(installedFile), nil, 0o644); err != nil {
			return err
		}
	}
	if _, err := s.Ready(ctx); err != nil {
		return err
	}
	return s.answer(ctx)
}

// report passes on what the machine says about itself, until the function it
// returns is called.
func (s *Site) report(ctx context.Context, progress func(time.Duration, string)) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	over := make(chan struct{})
	go func() {
		defer close(over)
		s.Console.Follow(ctx, func(l Line) {
			if words := said.FindStringSubmatch(l.Text); words != nil {
				progress(l.At, words[1])
			}
		})
	}()
	return func() {
		cancel()
		<-over
	}
}

// Install waits for the installer on the medium and takes the medium out when
// it is told to. The machine boots from its disk next.
func (r *Running) Install(ctx context.Context) error {
	if _, err := r.expect(ctx, installTime, installed); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startTime, fmt.Errorf("not within %v", startTime))
	defer cancel()
	return r.Monitor.Unplug(ctx)
}

// Ready waits until the installed system says that it has come up.
func (r *Running) Ready(ctx context.Context) (Match, error) { return r.expect(ctx, bootTime, ready) }

// expect waits for a line and gives up early when the guest does.
func (r *Running) expect(ctx context.Context, timeout time.Duration, line *regexp.Regexp) (Match, error) {
	m, err := r.Console.Expect(ctx, timeout, line, refused, unbootable, kernelPanic)
	if err != nil || m.Pattern == 0 {
		return m, err
	}
	select { // it explains itself in the lines that follow
	case <-time.After(r.Scale.Of(time.Second / 5)):
	case <-ctx.Done():
	}
	return m, fmt.Errorf("the machine gave up; it last printed:\n%s", r.Console.Tail(12))
}

// answer waits until Incus takes the certificate. It is ready when it says so,
// but its port is reached through QEMU's own network.
func (s *Site) answer(ctx context.Context) error {
	limit := s.Scale.Of(offTime)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := s.Trusted(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return fmt.Errorf("waiting %v for Incus to answer: %w", limit, err)
		}
	}
}

// Trusted reports what is missing before Incus takes the certificate; nil is
// nothing.
func (s *Site) Trusted(ctx context.Context) error {
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig:     s.Identity.TLS(),
		TLSHandshakeTimeout: handshakeTime,
		DisableKeepAlives:   true,
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/1.0", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var answer struct {
		Metadata struct {
			Auth string `json:"auth"`
		} `json:"metadata"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return fmt.Errorf("reading the answer of %s: %w", s.URL, err)
	}
	if answer.Metadata.Auth != "trusted" {
		return fmt.Errorf("%s says the client certificate is %q; want \"trusted\"", s.URL, answer.Metadata.Auth)
	}
	return nil
}

// Down asks the machine to switch itself off, and pulls the plug if it does
// not do so in time.
func (s *Site) Down(ctx context.Context) error {
	defer s.Stop()
	return s.PowerOff(ctx, offTime)
}
