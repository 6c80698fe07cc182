package console_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/console"
	"github.com/incusos/incusos/internal/sys"
)

// transcript returns what a serial console was told while do ran, without the
// beginning that all lines have.
func transcript(t *testing.T, do func(*console.Console)) []string {
	t.Helper()
	var out bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		c := console.New(sys.NewDir(t.TempDir()), &out)
		do(c)
		c.Close()
	})
	var lines []string
	for line := range strings.Lines(out.String()) {
		text, ok := strings.CutPrefix(strings.TrimSuffix(line, "\r\n"), "incus-os: ")
		if !ok {
			t.Errorf("line %q does not begin as lines do", line)
		}
		lines = append(lines, text)
	}
	return lines
}

func TestSerialConsoleHearsWhatChanged(t *testing.T) {
	got := transcript(t, func(c *console.Console) {
		s := console.Status{Name: "IncusOS", Version: "202601010000", Mode: api.ModeDev, Starting: "host"}
		c.Show(s)
		s.Hostname, s.Starting = "node1", "network"
		c.Show(s)
		s.Elapsed = time.Second
		c.Show(s)
		s.Starting, s.Addresses = "", []string{"192.0.2.10"}
		c.Show(s)
		s.IncusUp = true
		c.Show(s)
		s.Degraded = []string{"storage: pool local is gone; plug it in"}
		c.Show(s)
		s.Degraded, s.Warnings = nil, []string{"nobody has fetched the recovery keys"}
		c.Show(s)
	})
	want := []string{
		"IncusOS 202601010000, DEVELOPMENT BUILD",
		"starting: host",
		"host name: node1",
		"starting: network",
		"IncusOS 202601010000 is ready: 192.0.2.10 (Incus is not running)",
		"IncusOS 202601010000 is ready: https://192.0.2.10:8443",
		"IncusOS 202601010000 is degraded: storage: pool local is gone; plug it in",
		"reachable at: https://192.0.2.10:8443",
		"warning: nobody has fetched the recovery keys",
		"IncusOS 202601010000 is ready: https://192.0.2.10:8443",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

func TestProgressIsToldEveryTwoSeconds(t *testing.T) {
	got := transcript(t, func(c *console.Console) {
		for i := range uint64(100) {
			c.Progress("install: writing usr", i, 99)
			c.Progress("fetching", i<<20, 0)
			time.Sleep(50 * time.Millisecond)
		}
		c.Progress("install: writing usr", 99, 99)
		c.Progress("install: writing usr", 1, 99)
	})
	want := []string{
		"install: writing usr 0 % (0 s)", "fetching 0 MiB (0 s)",
		"install: writing usr 40 % (2 s)", "fetching 40 MiB (2 s)",
		"install: writing usr 80 % (4 s)", "fetching 80 MiB (4 s)",
		"install: writing usr 100 % (4 s)",
		"install: writing usr 1 % (0 s)",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

func TestMessagesCannotForgeLines(t *testing.T) {
	got := transcript(t, func(c *console.Console) {
		c.Say("drive %s", "X\r\nincus-os: IncusOS 1 is ready\x1b[2J")
		c.Fail("cannot install", "there is no drive", "plug one in")
		c.Fail("cannot go on")
	})
	want := []string{
		`drive X\r\nincus-os: IncusOS 1 is ready\x1b[2J`,
		"cannot install: there is no drive",
		"cannot install: plug one in",
		"cannot go on",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

func TestConsolesOfTheMachine(t *testing.T) {
	files := sys.NewDir(t.TempDir())
	for name, content := range map[string]string{
		"/sys/class/tty/console/active": "tty0 ttyS0 hvc0 ttyGone\n",
		"/dev/tty1":                     "", "/dev/ttyS0": "", "/dev/hvc0": "",
	} {
		if err := files.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	broken := files.WithFault(func(_, name string) error {
		if name == "/dev/ttyS0" {
			return errors.New("no such device")
		}
		return nil
	})
	c := console.New(broken)
	c.Say("hello")
	c.Close()
	c.Say("too late")
	for name, want := range map[string]string{"/dev/ttyS0": "", "/dev/hvc0": "incus-os: hello\r\n", "/dev/tty1": " hello\x1b[K\x1b[0m\x1b[J"} {
		b, err := files.ReadFile(name)
		if got := string(b); err != nil || !strings.HasSuffix(got, want) || (want == "") != (got == "") {
			t.Errorf("%s was given %q, %v; want %q", name, got, err, want)
		}
	}
}

// A console that takes nothing any more holds up neither callers nor the others.
func TestStuckConsoleHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck, fine := &stuckWriter{release: make(chan struct{})}, &bytes.Buffer{}
		c := console.New(sys.NewDir(t.TempDir()), stuck, stuck, fine)
		for range 10_000 {
			c.Say("some text to fill the backlog with")
		}
		begin := time.Now()
		c.Close()
		if took := time.Since(begin); took != time.Second {
			t.Errorf("Close() took %v, want to give up after a second", took)
		}
		close(stuck.release)
		synctest.Wait()
		if fine.Len() == 0 {
			t.Error("the other console was told nothing")
		}
	})
}

type stuckWriter struct {
	release chan struct{}
}

func (w *stuckWriter) Write(b []byte) (int, error) {
	<-w.release
	return len(b), nil
}

func TestMorePortsCanBeAskedFor(t *testing.T) {
	files := sys.NewDir(t.TempDir())
	const port = "/dev/ttyS1"
	if err := files.WriteFile(port, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	told := make(chan string, 16)
	files = files.WithKernel(func(name string, data []byte) (bool, error) { told <- name + " " + string(data); return true, nil })
	c := console.New(files)
	c.Show(console.Status{Name: "IncusOS", Version: "1"})
	c.Also([]string{port})
	if got := <-told; !strings.HasPrefix(got, port+" incus-os: IncusOS 1\r\n") {
		t.Errorf("the port is told %q; want how the machine is", got)
	}
	c.Say("hello")
	if got := <-told; got != port+" incus-os: hello\r\n" {
		t.Errorf("the port is told %q; want what all are", got)
	}
	c.Also(nil)
	c.Say("no more")
	c.Close()
	c.Also([]string{port})
	if len(told) > 0 {
		t.Errorf("the port is told %q although nobody wants it any more", <-told)
	}
}

// A warning stays for its time, counts down on the screen, and is said once elsewhere.
func TestWarningIsShownForATime(t *testing.T) {
	var took time.Duration
	got := transcript(t, func(c *console.Console) {
		began := time.Now()
		if err := c.Warn(context.WithoutCancel(t.Context()), 3*time.Second, "this machine will not be trusted", "Secure Boot is off."); err != nil {
			t.Error(err)
		}
		took = time.Since(began)
	})
	want := []string{
		"this machine will not be trusted: Secure Boot is off.",
		"this machine will not be trusted: This goes on in 3 s; to stop it, turn the machine off.",
	}
	if diff := cmp.Diff(want, got); diff != "" || took != 3*time.Second {
		t.Errorf("it took %v; (-want +got):\n%s", took, diff)
	}
}

func TestWarningEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := console.New(sys.NewDir(t.TempDir())).Warn(ctx, time.Hour, "warning"); !errors.Is(err, context.Canceled) {
		t.Errorf("Warn() = %v, want that it was told to stop", err)
	}
}

func TestSerialConsoleHearsOfDistrust(t *testing.T) {
	got := transcript(t, func(c *console.Console) {
		c.Show(console.Status{Name: "IncusOS", Version: "202601010000", Alarms: []string{"Secure Boot is off"}, Starting: "host"})
	})
	if want := []string{"IncusOS 202601010000", "not trusted: Secure Boot is off", "starting: host"}; !cmp.Equal(got, want) {
		t.Errorf("it was told %q, want %q", got, want)
	}
}
