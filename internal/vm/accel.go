package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// An Accel is what runs the guest's instructions.
type Accel string

const (
	KVM Accel = "kvm" // the processor
	TCG Accel = "tcg" // QEMU, by translating them
)

// options are QEMU's. The processor is the best there is in both cases; the
// room for translated code keeps a booting kernel from being translated twice.
// Translated, it has no SVM: QEMU 10.0 offers it and ends with "assertion failed:
// (bql_locked())" as soon as the guest runs a virtual machine, which takes the
// guest's work with it. Nor does it have the fast string instructions: they are
// translated into a step for each byte, and the kernel would clear every page so.
func (a Accel) options(arch string) []string {
	if a == KVM {
		return []string{"-accel", "kvm", "-cpu", "max"}
	}
	cpu := "max"
	if arch == "amd64" {
		cpu += ",svm=off,erms=off,fsrm=off"
	}
	return []string{"-accel", "tcg,thread=multi,tb-size=2048", "-cpu", cpu}
}

// A Scale is how many times longer things take than with KVM on an idle host.
type Scale float64

// ScaleVariable is the environment variable that replaces the scale.
const ScaleVariable = "INCUSOS_VM_TIMEOUT_SCALE"

// Of returns d as long as it takes at this scale.
func (s Scale) Of(d time.Duration) time.Duration { return time.Duration(float64(d) * float64(s)) }

// Scale returns the scale of an Accel: measured boots take ten times longer
// when they are translated on two processors.
func (a Accel) Scale() (Scale, error) {
	if v := os.Getenv(ScaleVariable); v != "" {
		f, err := strconv.ParseFloat(v, 64)
		if err != nil || f <= 0 {
			return 0, fmt.Errorf("%s is %q; want a number above 0, such as 2.5", ScaleVariable, v)
		}
		return Scale(f), nil
	}
	if a == KVM {
		return 1, nil
	}
	return 10, nil
}

// accel returns KVM if a firmware really starts under it. That a device node
// is there and opens proves nothing: in nested and in sandboxed hosts it often
// does both and then runs no instruction. What was found out is kept in the
// cache for this kernel and this QEMU.
func (m *Machine) accel(ctx context.Context) (Accel, error) {
	if m.tools.arch.name != runtime.GOARCH || !writable("/dev/kvm") {
		return TCG, nil
	}
	name, err := m.accelFile(ctx)
	if err != nil {
		return "", err
	}
	if known, err := os.ReadFile(name); err == nil {
		return Accel(strings.TrimSpace(string(known))), nil
	}
	a, err := m.probe(ctx)
	if err != nil {
		return "", fmt.Errorf("finding out whether KVM runs a firmware: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return "", err
	}
	return a, os.WriteFile(name, []byte(a+"\n"), 0o644)
}

func writable(name string) bool {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return false
	}
	return f.Close() == nil
}

var qemuVersion = regexp.MustCompile(`version (\d[\w.]*)`)

// accelFile is where the cache keeps what the probe found.
func (m *Machine) accelFile(ctx context.Context) (string, error) {
	out, err := m.opt.Exec.Run(ctx, m.tools.command(m.tools.arch.qemu, "--version"))
	if err != nil {
		return "", fmt.Errorf("asking QEMU for its version: %w", err)
	}
	version := qemuVersion.FindSubmatch(out)
	if version == nil {
		return "", fmt.Errorf("asking QEMU for its version: got %q", out)
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return "", fmt.Errorf("asking for the kernel's release: %w", err)
	}
	name := fmt.Sprintf("accel-%s-qemu-%s", unix.ByteSliceToString(uts.Release[:]), version[1])
	return filepath.Join(m.opt.Cache, name), nil
}

// probeTime is many times what a firmware needs for its first word under KVM.
const probeTime = 10 * time.Second

// probe starts a firmware alone under KVM. Any character it prints is life.
func (m *Machine) probe(ctx context.Context) (Accel, error) {
	dir, err := os.MkdirTemp("", "vm-probe-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	o := m.opt
	o.Disks, o.Port = []Disk{{Name: "probe", Size: 1 << 20}}, 0
	p, err := Create(dir, o)
	if err != nil {
		return "", err
	}
	r, err := p.start(ctx, Boot{NoTPM: true}, KVM)
	if errors.Is(err, ErrEnded) {
		return TCG, nil // QEMU would not even begin
	}
	if err != nil {
		return "", err
	}
	defer r.Stop()
	r.Console.scale = 1
	if _, err := r.Console.Expect(ctx, probeTime, regexp.MustCompile(`.`)); err != nil {
		return TCG, ctx.Err()
	}
	return KVM, nil
}
