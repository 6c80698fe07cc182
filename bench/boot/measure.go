package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/incusos/incusos/internal/vm"
)

// What the machines say on the serial port.
var (
	setUp   = regexp.MustCompile(`\bbench: preseeded`)
	handed  = regexp.MustCompile(`^BdsDxe: starting`)
	daemon  = regexp.MustCompile(`\bincus-os: `)
	isReady = regexp.MustCompile(`\bincus-os: \S+ \S+ is ready: https://`)
)

const (
	// pollTime is the time from one attempt to reach Incus to the next.
	pollTime = 100 * time.Millisecond
	// handshakeTime ends an attempt: QEMU's network takes a connection before the
	// guest has one, and such an attempt must not hold up later ones.
	handshakeTime = 2 * time.Second
)

// Marks are moments of a boot, counted from when QEMU lets the machine run; 0
// is one that was not seen.
type Marks struct {
	Loader  time.Duration // the firmware starts a boot loader
	Kernel  time.Duration // the kernel is unpacked and runs; see processor.go
	Init    time.Duration // the first program of the initrd runs; likewise
	Daemon  time.Duration // IncusOS speaks
	Answers time.Duration // Incus takes the client certificate
	Ready   time.Duration // IncusOS says that Incus is ready
}

// parts are the marks by themselves, in the order of the table.
func (m *Marks) parts() []*time.Duration {
	return []*time.Duration{&m.Loader, &m.Kernel, &m.Init, &m.Daemon, &m.Answers, &m.Ready}
}

func (m Marks) String() string {
	return fmt.Sprintf("loader %s, kernel %s, init %s, daemon %s, answers %s, says ready %s", show(m.Loader), show(m.Kernel), show(m.Init), show(m.Daemon), show(m.Answers), show(m.Ready))
}

// show writes a mark in seconds.
func show(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f", d.Seconds())
}

// measure boots a system, waits until its Incus answers, and switches it off.
func measure(ctx context.Context, s system) (Marks, error) {
	r, err := s.start(ctx)
	if err != nil {
		return Marks{}, err
	}
	defer r.Stop()
	var m Marks
	seen := watch(ctx, r)
	if m.Answers, err = answers(ctx, s.site(r)); err != nil {
		return m, err
	}
	m.Kernel, m.Init = seen()
	if r.Console.Seen(daemon) {
		if _, err := r.Ready(ctx); err != nil {
			return m, err
		}
	}
	m.read(r.Console)
	return m, r.PowerOff(ctx, offTime)
}

// read takes the marks that were printed, each where it came first.
func (m *Marks) read(c *vm.Console) {
	over, cancel := context.WithCancel(context.Background())
	cancel() // what is there, and no waiting for more
	c.Follow(over, func(l vm.Line) {
		for mark, pattern := range map[*time.Duration]*regexp.Regexp{&m.Loader: handed, &m.Daemon: daemon, &m.Ready: isReady} {
			if *mark == 0 && pattern.MatchString(l.Text) {
				*mark = l.At
			}
		}
	})
}

// answers waits until Incus takes the certificate and returns when that was.
func answers(ctx context.Context, s *vm.Site) (time.Duration, error) {
	limit := s.Scale.Of(measureTime)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not within %v", limit))
	defer cancel()
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: s.Identity.TLS(), TLSHandshakeTimeout: handshakeTime, DisableKeepAlives: true,
	}}
	first := make(chan time.Duration, 1)
	for tick := time.Tick(pollTime); ; {
		go func() {
			if trusted(ctx, client, s.URL) != nil {
				return
			}
			select {
			case first <- s.Console.Elapsed():
			default: // another attempt was faster
			}
		}()
		select {
		case at := <-first:
			return at, nil
		case <-tick:
		case <-s.Done():
			return 0, fmt.Errorf("waiting for Incus to answer: %w; it last printed:\n%s", vm.ErrEnded, s.Console.Tail(12))
		case <-ctx.Done():
			return 0, fmt.Errorf("waiting for Incus to answer: %w; it last printed:\n%s", context.Cause(ctx), s.Console.Tail(12))
		}
	}
}

// trusted returns nil if Incus answers to somebody it trusts.
func trusted(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/1.0", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // only read from
	var answer struct {
		Metadata struct{ Auth string }
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || answer.Metadata.Auth != "trusted" {
		return fmt.Errorf("%s answers %s and calls the certificate %q", url, resp.Status, answer.Metadata.Auth)
	}
	return nil
}

// table compares the medians of both systems.
func table(ours string, our []Marks, theirs string, their []Marks) string {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "median, s\tfirmware\tloader\tkernel\tinitrd to daemon\tdaemon to Incus\tall\tsays ready\t")
	x, y := median(our), median(their)
	for _, row := range []struct {
		name string
		m    Marks
	}{{ours, x}, {theirs, y}} {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", row.name,
			show(row.m.Loader), since(row.m.Kernel, row.m.Loader), since(row.m.Init, row.m.Kernel),
			since(row.m.Daemon, row.m.Init), since(row.m.Answers, row.m.Daemon, row.m.Init),
			show(row.m.Answers), show(row.m.Ready))
	}
	_ = t.Flush() // a Builder takes everything
	fmt.Fprintf(&b, "from switching on to Incus answering, %s/%s: %.2f\n", ours, theirs, x.Answers.Seconds()/y.Answers.Seconds())
	if x.Loader > 0 {
		fmt.Fprintf(&b, "%s from its boot loader: %s s\n", ours, show(x.Answers-x.Loader))
	}
	return b.String()
}

// since writes how long after the last mark before it a mark came. A phase whose
// end was not seen is counted with the next one.
func since(mark time.Duration, before ...time.Duration) string {
	if mark == 0 {
		return "-"
	}
	return show(mark - slices.Max(before))
}

// median returns Marks of which each is the median of that mark.
func median(all []Marks) Marks {
	var m Marks
	for i, part := range m.parts() {
		values := make([]time.Duration, len(all))
		for j := range all {
			values[j] = *all[j].parts()[i]
		}
		slices.Sort(values)
		n := len(values)
		*part = (values[(n-1)/2] + values[n/2]) / 2
	}
	return m
}
