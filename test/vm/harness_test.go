//go:build vm

package vm_test

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/incusos/incusos/internal/vm"
)

// firmware is what each firmware prints when it has nothing to boot.
var firmware = regexp.MustCompile(`BdsDxe|No bootable option`)

// TestFirmwareOfEveryKind starts what the scenarios that must be refused use.
func TestFirmwareOfEveryKind(t *testing.T) {
	for name, b := range map[string]vm.Boot{"no TPM": {NoTPM: true}, "no Secure Boot": {NoSecureBoot: true}} {
		t.Run(name, func(t *testing.T) {
			r := start(t, newMachine(t), b)
			if _, err := r.Console.Expect(t.Context(), 10*time.Second, firmware); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestFirmwareAlone needs no image: it shows that the harness itself works on
// this host, and how long a bare start takes.
func TestFirmwareAlone(t *testing.T) {
	m := newMachine(t)
	stick := filepath.Join(m.Dir(), "stick")
	if err := os.WriteFile(stick, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	r := start(t, m, vm.Boot{Medium: stick})
	t.Logf("started with %s, timeouts times %v", r.Accel, r.Scale)

	line, err := r.Console.Expect(t.Context(), 10*time.Second, firmware)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the firmware spoke after %v: %q", line.At.Round(time.Millisecond), line.Text)

	shot := filepath.Join(m.Dir(), "screen.png")
	if err := r.Monitor.Screenshot(t.Context(), shot); err != nil {
		t.Error(err)
	} else if info, err := os.Stat(shot); err != nil || info.Size() == 0 {
		t.Errorf("the screenshot is empty (error: %v)", err)
	}
	if err := r.Monitor.Unplug(within(t, r, 5*time.Second)); err != nil {
		t.Error(err)
	}
	if err := r.Monitor.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Monitor.Wait(within(t, r, 5*time.Second), "RESET"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Console.Expect(t.Context(), 10*time.Second, firmware); err != nil {
		t.Errorf("after a reset: %v", err)
	}

	pids := r.PIDs()
	r.Stop()
	for _, pid := range pids {
		if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
			t.Errorf("process %d outlived Stop: %v", pid, err)
		}
	}
}
