//go:build vm

package vm_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/internal/vm"
	"github.com/incusos/incusos/test/vm/incus"
)

// expectNever waits for a line that comes instead of a machine that is ready.
func expectNever(t *testing.T, r *vm.Running, line *regexp.Regexp) {
	t.Helper()
	m, err := r.Console.Expect(t.Context(), refusal, line, says.ready)
	if err != nil {
		t.Fatal(err)
	}
	if m.Pattern != 0 {
		t.Fatalf("the machine came up; want it to say %s:\n%s", line, r.Console.Tail(30))
	}
	t.Logf("after %v: %s", m.At.Round(100*time.Millisecond), m.Text)
}

func literally(text string) *regexp.Regexp { return regexp.MustCompile(regexp.QuoteMeta(text)) }

// environment is what Incus says about its host.
type environment struct {
	Environment struct {
		Architectures []string `json:"architectures"`
		Driver        string   `json:"driver"`
	} `json:"environment"`
}

// newContainer makes the container c1 and starts it.
func newContainer(t *testing.T, r *vm.Running, c *incus.Client) {
	t.Helper()
	ctx := within(t, r, 2*time.Minute)
	var server environment
	if err := c.Get(ctx, "/1.0", &server); err != nil {
		t.Fatal(err)
	}
	image, err := incus.Image(busybox(t), server.Environment.Architectures[0])
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	fingerprint, err := c.Upload(ctx, image)
	if err != nil {
		t.Fatal(err)
	}
	err = c.Post(ctx, "/1.0/instances", map[string]any{
		"name": "c1", "type": "container", "start": true,
		"source": map[string]string{"type": "image", "fingerprint": fingerprint},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("a container was made and started in %v", time.Since(began).Round(100*time.Millisecond))
	works(t, ctx, c)
}

func container(t *testing.T, r *vm.Running, c *incus.Client) {
	ctx := within(t, r, 2*time.Minute)
	newContainer(t, r, c)

	if err := c.Post(ctx, "/os/1.0/system/:reboot", nil, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Console.Expect(t.Context(), r.Scale.Of(time.Minute), says.starting); err != nil {
		t.Fatal(err) // what it said before may come once more
	}
	again, err := r.Ready(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("ready again %v after the start", again.At.Round(time.Second))
	if err := retry(ctx, func() error { return running(ctx, c) }); err != nil {
		t.Fatalf("after a restart of the machine: %v", err)
	}
	works(t, ctx, c)
	if out, err := c.Exec(ctx, "c1", "/bin/cat", "/root/end"); err != nil || strings.TrimSpace(out.Stdout) != "asked" {
		t.Errorf("how the container ended with the machine: %+v, %v; want Incus to have asked it to", out, err)
	}
}

// works runs a command in the container and waits for its address.
func works(t *testing.T, ctx context.Context, c *incus.Client) {
	t.Helper()
	out, err := c.Exec(ctx, "c1", "/bin/busybox", "uname", "-s")
	if err != nil || out.Status != 0 || strings.TrimSpace(out.Stdout) != "Linux" {
		t.Errorf("uname in the container gave %+v, %v, want \"Linux\"", out, err)
	}
	var addresses []string
	err = retry(ctx, func() error {
		s, err := c.State(ctx, "c1")
		addresses = s.IPv4("eth0")
		if err == nil && len(addresses) == 0 {
			err = errors.New("the container has no IPv4 address on eth0")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var leases []struct{ Hostname, Address string }
	if err := c.Get(ctx, "/1.0/networks/incusbr0/leases", &leases); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(leases, func(l struct{ Hostname, Address string }) bool { return l.Address == addresses[0] }) {
		t.Errorf("the container has %s, which incusbr0 did not give it: %+v", addresses[0], leases)
	}
}

func running(ctx context.Context, c *incus.Client) error {
	s, err := c.State(ctx, "c1")
	if err == nil && s.Status != "Running" {
		err = fmt.Errorf("the container is %q, want it running", s.Status)
	}
	return err
}

// virtualMachine starts an empty machine, whose firmware then looks for
// something to boot. Where the guest has no KVM, which is so wherever this host
// has none, Incus offers no virtual machines and must say that this is why.
func virtualMachine(t *testing.T, r *vm.Running, c *incus.Client) {
	ctx := within(t, r, time.Minute)
	var server environment
	if err := c.Get(ctx, "/1.0", &server); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(server.Environment.Driver, "qemu") {
		reason := noVirtualMachines(t, ctx, c)
		t.Logf("drivers are %q; Incus says: %s", server.Environment.Driver, reason)
		if !says.noKVM.MatchString(reason) {
			t.Errorf("Incus runs no virtual machines because of %q; want only a missing KVM to keep it", reason)
		}
		return
	}
	err := c.Post(ctx, "/1.0/instances", map[string]any{
		"name": "v1", "type": "virtual-machine", "start": true,
		"config": map[string]string{"security.secureboot": "false", "limits.memory": "512MiB"},
		"source": map[string]string{"type": "none"},
	}, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, qemuLogs(ctx, c))
	}
	err = retry(ctx, func() error {
		screen, err := c.Raw(ctx, "/1.0/instances/v1/console")
		if err == nil && !strings.Contains(screen, "BdsDxe") {
			err = fmt.Errorf("its console shows %q, want the firmware", screen)
		}
		return err
	})
	if err != nil {
		t.Errorf("%v\n%s", err, qemuLogs(ctx, c))
	}
	if err := c.Do(ctx, "DELETE", "/1.0/instances/v1?force=1", nil, nil); err != nil {
		t.Logf("the virtual machine is left behind: %v", err)
	}
}

// qemuLogs returns what QEMU said about the virtual machine.
func qemuLogs(ctx context.Context, c *incus.Client) string {
	var all strings.Builder
	for _, name := range []string{"qemu.early.log", "qemu.log"} {
		text, err := c.Raw(ctx, "/1.0/instances/v1/logs/"+name)
		fmt.Fprintf(&all, "%s (%v):\n%s\n", name, err, text)
	}
	return all.String()
}

// noVirtualMachines returns Incus' warnings about what it cannot run.
func noVirtualMachines(t *testing.T, ctx context.Context, c *incus.Client) string {
	t.Helper()
	var warnings []struct {
		Type        string `json:"type"`
		LastMessage string `json:"last_message"`
	}
	if err := c.Get(ctx, "/1.0/warnings?recursion=1", &warnings); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, w := range warnings {
		all = append(all, w.Type+": "+w.LastMessage)
	}
	return strings.Join(all, "; ")
}
