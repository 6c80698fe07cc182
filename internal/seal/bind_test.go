package seal_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/seal"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
	"github.com/incusos/incusos/internal/uefi"
)

// restart starts the machine anew and expects root to be unlocked in that way.
func restart(t *testing.T, trust *systest.Trust, want string) {
	t.Helper()
	if by, err := trust.Restart(); by != want || err != nil {
		t.Fatalf("root was unlocked by %q, %v; want %q", by, err, want)
	}
}

// restarted is restart, in a machine whose /run is new.
func restarted(t *testing.T, rig *systest.Rig, trust *systest.Trust, want string) {
	t.Helper()
	if err := rig.Host.Files.RemoveAll("/run/incus-os/rebound"); err != nil {
		t.Fatal(err)
	}
	restart(t, trust, want)
}

func kind(err error) api.Kind {
	if e, ok := errors.AsType[*api.Error](err); ok {
		return e.Kind
	}
	return ""
}

// What the firmware was given to trust meanwhile is provided for before the restart,
// and what was is taken away after it.
func TestReconcileProvidesForTheNextStart(t *testing.T) {
	rig, trust, s := trusted(t)
	if err := trust.SetVariable("dbx", lists(t, signer(t, "x").Certificate)); err != nil {
		t.Fatal(err)
	}
	if err := s.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h, err := trust.Header(); err != nil || len(h.TPM2Tokens()) != 2 {
		t.Fatalf("root is bound %d times, %v; want to this start and to the next", len(h.TPM2Tokens()), err)
	}
	if d := examine(t, s); !d.Unlocks {
		t.Errorf("the doctor says %q", d.Verdict)
	}
	restarted(t, rig, trust, "tpm")
	if err := s.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h, err := trust.Header(); err != nil || len(h.TPM2Tokens()) != 1 {
		t.Errorf("root is bound %d times, %v; want to what counts alone", len(h.TPM2Tokens()), err)
	}
	restarted(t, rig, trust, "tpm")
}

// Until the restart, either start would unlock: the change may be taken back.
func TestBothStartsUnlockUntilTheRestart(t *testing.T) {
	_, trust, s := trusted(t)
	before := []byte{}
	if err := trust.SetVariable("dbx", lists(t, signer(t, "x").Certificate)); err != nil {
		t.Fatal(err)
	}
	if err := s.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := trust.SetVariable("dbx", before); err != nil {
		t.Fatal(err)
	}
	restart(t, trust, "tpm")
}

func TestRebindWhenNeededAndOnlyThen(t *testing.T) {
	rig, trust, s := trusted(t)
	if err := s.Rebind(t.Context(), ""); kind(err) != api.Conflict {
		t.Errorf("on a healthy machine: %v", err)
	}
	for _, change := range map[string]func() error{
		"dbx":         func() error { return trust.SetVariable("dbx", lists(t, signer(t, "x").Certificate)) },
		"another TPM": trust.ReplaceTPM,
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		restarted(t, rig, trust, "recovery key")
		if err := s.Rebind(t.Context(), "123-456"); err == nil || !strings.HasPrefix(err.Error(), "pin: is of no use") {
			t.Errorf("with a PIN that nobody asked for: %v", err)
		}
		if err := s.Rebind(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		if err := s.Rebind(t.Context(), ""); kind(err) != api.Conflict {
			t.Errorf("once more: %v", err)
		}
		if d := examine(t, s); !d.Unlocks {
			t.Errorf("the doctor says %q", d.Verdict)
		}
		restarted(t, rig, trust, "tpm")
		if err := s.Reconcile(t.Context()); err != nil {
			t.Error(err)
		}
		if h, err := trust.Header(); err != nil || len(h.TPM2Tokens()) != 1 {
			t.Errorf("root is bound %d times, %v", len(h.TPM2Tokens()), err)
		}
	}
}

func TestRebindWithoutTPM(t *testing.T) {
	m := systest.Sensible()
	m.TPM = false
	rig := systest.New(t, m)
	if err := seal.New(rig.Host, func() bool { return true }).Rebind(t.Context(), ""); kind(err) != api.Conflict {
		t.Errorf("said %v", err)
	}
}

func TestPIN(t *testing.T) {
	rig, trust, s := trusted(t)
	if err := s.RemovePIN(t.Context()); kind(err) != api.Conflict {
		t.Errorf("removing none: %v", err)
	}
	steps := []struct {
		do    func() error
		typed string
		want  string
	}{
		{func() error { return s.SetPIN(t.Context(), "314159") }, "314159", "tpm"},
		{func() error { return nil }, "271828", "recovery key"},
		{func() error { return s.Rebind(t.Context(), "314159") }, "314159", "tpm"},
		{func() error { return s.SetPIN(t.Context(), "271828") }, "271828", "tpm"},
		{func() error { return nil }, "314159", "recovery key"},
		{func() error { return s.Rebind(t.Context(), "271828") }, "271828", "tpm"},
		{func() error { return s.RemovePIN(t.Context()) }, "", "tpm"},
	}
	for i, step := range steps {
		if err := step.do(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		trust.TypePIN(step.typed)
		restarted(t, rig, trust, step.want)
		if err := s.Reconcile(t.Context()); (err == nil) != (step.want == "tpm") {
			t.Fatalf("step %d: Reconcile() = %v", i, err)
		}
		h, err := trust.Header()
		if err != nil || len(h.TPM2Tokens()) != 1 || h.TPM2Tokens()[0].TPM2.PIN != (step.typed != "") {
			t.Errorf("step %d: bound by %+v, %v", i, h.TPM2Tokens(), err)
		}
		if state, err := s.State(); err != nil || state.TPMPIN != (step.typed != "") {
			t.Errorf("step %d: the state says %v, %v", i, state.TPMPIN, err)
		}
	}
	for _, line := range rig.Programs.Ran() {
		if strings.Contains(line, "314159") {
			t.Errorf("a PIN is in a command line: %q", line)
		}
	}
}

// Whoever has a copy of root's header from before a PIN was set gets past it. The machine
// notices.
func TestAHeaderFromBeforeThePINIsComplainedOf(t *testing.T) {
	rig, trust, s := trusted(t)
	f, err := rig.Host.Files.Open("/dev/vda9")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	before := make([]byte, 16<<20) // of a device that is as large as a real one
	if _, err := io.ReadFull(f, before); err != nil {
		t.Fatal(err)
	}
	if err := s.SetPIN(t.Context(), "314159"); err != nil {
		t.Fatal(err)
	}
	if err := rig.Host.Files.PutFile("/dev/vda9", before); err != nil {
		t.Fatal(err)
	}
	restarted(t, rig, trust, "tpm")
	if err := s.Reconcile(t.Context()); err == nil || !strings.Contains(err.Error(), "nothing on the disk asks for it") {
		t.Errorf("Reconcile() = %v, want a complaint of the header", err)
	}
	if err := s.SetPIN(t.Context(), "314159"); err != nil {
		t.Fatal(err)
	}
	trust.TypePIN("314159")
	restarted(t, rig, trust, "tpm")
	if err := s.Reconcile(t.Context()); err != nil {
		t.Errorf("Reconcile() = %v once the PIN was set again", err)
	}
}

func TestRefusedPINs(t *testing.T) {
	_, _, s := trusted(t)
	for pin, want := range map[string]string{
		"12345":   "pin: has 5 characters; want 6 to 64",
		"1111112": "pin: consists of 2 different characters; want at least 3",
		"12 3456": "pin: has characters that not every keyboard has, or blanks; want letters, digits and signs of ASCII",
		key(3):    "pin: has 71 characters; want 6 to 64",
	} {
		if err := s.SetPIN(t.Context(), pin); err == nil || err.Error() != want {
			t.Errorf("of %q: said %v, want %q", pin, err, want)
		}
	}
}

// The PIN has to be told to the TPM again when PCR 7 changes; the machine cannot.
func TestNextStartWithPINNeedsSomebody(t *testing.T) {
	rig, trust, s := trusted(t)
	if err := s.SetPIN(t.Context(), "314159"); err != nil {
		t.Fatal(err)
	}
	trust.TypePIN("314159")
	restarted(t, rig, trust, "tpm")
	if err := trust.SetVariable("dbx", lists(t, signer(t, "x").Certificate)); err != nil {
		t.Fatal(err)
	}
	if err := s.Reconcile(t.Context()); err == nil || !strings.Contains(err.Error(), "incusos os system security set-pin") {
		t.Errorf("Reconcile() = %v", err)
	}
	if state, err := s.State(); err != nil || state.TPMStatus != api.TPMMismatch || state.EncryptedVolumes[0].State != "unlocked (TPM; PCR update pending)" {
		t.Errorf("the state says %q, %+v, %v", state.TPMStatus, state.EncryptedVolumes, err)
	}
	if err := s.Rebind(t.Context(), ""); err == nil || !strings.HasPrefix(err.Error(), "pin: is missing") {
		t.Errorf("Rebind() = %v", err)
	}
	if err := s.Rebind(t.Context(), "314159"); err != nil {
		t.Fatal(err)
	}
	restarted(t, rig, trust, "tpm")
}

// TestBindingsSurviveCuts cuts each way to change a binding at every effect, and
// expects the next start to unlock by itself, or with the PIN that was or is to be, and
// everything to be in order after the reconciliation that follows.
func TestBindingsSurviveCuts(t *testing.T) {
	ways := map[string]func(context.Context, *seal.Seal) error{
		"set a PIN":    func(ctx context.Context, s *seal.Seal) error { return s.SetPIN(ctx, "314159") },
		"another PIN":  func(ctx context.Context, s *seal.Seal) error { return s.SetPIN(ctx, "271828") },
		"remove a PIN": func(ctx context.Context, s *seal.Seal) error { return s.RemovePIN(ctx) },
		"provide":      func(ctx context.Context, s *seal.Seal) error { return s.Reconcile(ctx) },
	}
	for name, way := range ways {
		for at := 1; ; at++ {
			rig, trust, s := trusted(t)
			if name == "another PIN" || name == "remove a PIN" {
				if err := s.SetPIN(t.Context(), "314159"); err != nil {
					t.Fatal(err)
				}
			}
			if name == "provide" {
				if err := trust.SetVariable("dbx", lists(t, signer(t, "x").Certificate)); err != nil {
					t.Fatal(err)
				}
			}
			cutter := &systest.Cutter{At: at, Power: true, Late: at%2 == 0}
			err := way(t.Context(), seal.New(cutter.Host(rig.Host), func() bool { return true }))
			if cutter.Over() {
				break
			}
			if err == nil {
				t.Fatalf("%s: effect %d was cut and nobody noticed", name, at)
			}
			if name == "provide" { // as long as it is not there, the variable is not changed
				if err := trust.SetVariable("dbx", nil); err != nil {
					t.Fatal(err)
				}
			}
			typed := ""
			for _, pin := range []string{"", "314159", "271828"} {
				trust.TypePIN(pin)
				if by, err := trust.Restart(); err != nil || by == "tpm" {
					typed = pin
					break
				}
			}
			restarted(t, rig, trust, "tpm")
			if err := s.Reconcile(t.Context()); err != nil {
				t.Fatalf("%s: after a cut at %d: %v", name, at, err)
			}
			h, err := trust.Header()
			if err != nil || len(h.TPM2Tokens()) != 1 {
				t.Fatalf("%s: after a cut at %d (PIN %q) root is bound %d times, %v", name, at, typed, len(h.TPM2Tokens()), err)
			}
		}
	}
}

// What is typed is a PIN or a recovery key, whichever it turns out to be.
func TestUnlockAsksForThePIN(t *testing.T) {
	const wanted = "PIN querying disabled via 'headless' option. Use the '$PIN' environment variable."
	tests := map[string]struct {
		typed []string
		by    string
		takes time.Duration
	}{
		"the PIN":              {[]string{"314159\n"}, "tpm", 0},
		"a wrong one first":    {[]string{"000000", "", "314159"}, "tpm", 3 * time.Second},
		"a recovery key":       {[]string{key(3)}, "recovery key", 0},
		"a passphrase instead": {[]string{"Correct Horse - Battery"}, "recovery key", 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			rig := systest.New(t, systest.Sensible())
			var tried []string
			rig.Programs.Model("systemd-cryptsetup", func(_ context.Context, c sys.Cmd) ([]byte, error) {
				said := wanted
				if c.Args[3] != "-" {
					typed, err := rig.Host.Files.ReadFile(c.Args[3])
					if err != nil || string(typed) == key(3) || strings.HasPrefix(string(typed), "Correct") {
						return nil, err
					}
					said = "no"
				}
				for _, v := range c.Env {
					if v == "PIN=314159" {
						return nil, nil
					}
					tried = append(tried, v)
				}
				return nil, &sys.ExecError{Name: "systemd-cryptsetup", Code: 1, Stderr: said}
			})
			synctest.Test(t, func(t *testing.T) {
				began, asked := time.Now(), 0
				by, err := seal.Unlock(t.Context(), rig.Host, device, func(prompt string) (string, error) {
					if !strings.HasSuffix(prompt, "\nPIN: ") || strings.Contains(prompt, "keeps its key back") {
						t.Errorf("asked %q", prompt)
					}
					asked++
					return tt.typed[asked-1], nil
				})
				if err != nil || by != tt.by || asked != len(tt.typed) || time.Since(began) != tt.takes {
					t.Errorf("Unlock() = %q, %v, asked %d times in %s", by, err, asked, time.Since(began))
				}
			})
			for _, v := range tried {
				if strings.Contains(v, key(3)) {
					t.Error("a recovery key was tried as a PIN, of which a TPM takes only some")
				}
			}
		})
	}
}

// Some firmware measures variables that it hides from the system that it starts. They
// are no change.
func TestHiddenVariablesAreNoChange(t *testing.T) {
	rig, _, s := trusted(t)
	log, err := rig.Host.Files.ReadFile("/sys/kernel/security/tpm0/binary_bios_measurements")
	if err != nil {
		t.Fatal(err)
	}
	events, err := uefi.ParseEventLog(log)
	if err != nil {
		t.Fatal(err)
	}
	data, err := uefi.VariableEvent{Vendor: uefi.GlobalVariable, Name: "VendorSecret", Value: []byte{1, 2}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	hidden := uefi.Event{PCR: 7, Type: uefi.EventVariable, Digest: sha256.Sum256(data), Data: data}
	events = append([]uefi.Event{hidden}, events...)
	write(t, rig, "/sys/kernel/security/tpm0/binary_bios_measurements", string(uefi.EncodeEventLog(events)))
	write(t, rig, "/sys/class/tpm/tpm0/pcr-sha256/7", fmt.Sprintf("%x\n", uefi.ReplayPCR(events, 7)))
	d := examine(t, s)
	for _, e := range d.Events {
		if e.Measured != e.Expected {
			t.Errorf("%s is expected to change", e.About)
		}
	}
	if d.PCRs[1].Measured != d.PCRs[1].Expected {
		t.Errorf("PCR 7 is expected to change: %+v", d.PCRs[1])
	}
}
