package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/incusos/incusos/client"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

// machine describes the sensible machine with more drives and network cards.
func machine(drives, nics int) systest.Machine {
	m := systest.Sensible()
	for i := len(m.Drives); i < drives; i++ {
		m.Drives = append(m.Drives, systest.Drive{
			Name: fmt.Sprintf("sd%c%c", 'a'+i/26, 'a'+i%26), ID: fmt.Sprintf("ata-PRETEND_%03d", i),
			Model: "PRETEND", Serial: fmt.Sprintf("%03d", i), Size: 4 << 40,
		})
	}
	for i := len(m.NICs); i < nics; i++ {
		m.NICs = append(m.NICs, systest.NIC{
			Name: fmt.Sprintf("enp%ds0", i+1), Hwaddr: fmt.Sprintf("02:00:00:00:00:%02x", i+1), Up: true,
			Addresses: []string{fmt.Sprintf("198.51.100.%d/24", i+1), fmt.Sprintf("2001:db8::%x/64", i+1)},
		})
	}
	return m
}

// A running is the daemon that is measured.
type running struct {
	process sys.Process
	root    string
	socket  string
	log     *os.File
	binary  int64 // bytes
}

// startDaemon builds the daemon and starts it in dir. It returns once the
// machine is up.
func startDaemon(ctx context.Context, dir string, o options) (*running, error) {
	program := filepath.Join(dir, "incus-osd")
	build := sys.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "github.com/incusos/incusos/cmd/incus-osd")
	build.Env = []string{"CGO_ENABLED=0"}
	if _, err := sys.Real().Exec.Run(ctx, build); err != nil {
		return nil, fmt.Errorf("building the daemon: %w", err)
	}
	fi, err := os.Stat(program)
	if err != nil {
		return nil, err
	}
	description, err := json.Marshal(machine(o.drives, o.nics))
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "machine.json")
	if err := os.WriteFile(file, description, 0o600); err != nil {
		return nil, err
	}
	d := &running{root: filepath.Join(dir, "root"), socket: filepath.Join(dir, "s"), binary: fi.Size()}
	if d.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		return nil, err
	}
	c := sys.Command(program, "--root", d.root, "--pretend", "--machine", file, "--socket", d.socket)
	c.Stdout, c.Stderr = d.log, d.log
	if d.process, err = sys.Real().Exec.Start(ctx, c); err != nil {
		return nil, fmt.Errorf("starting the daemon: %w", err)
	}
	if err := d.ready(ctx); err != nil {
		d.stop()
		return nil, err
	}
	return d, nil
}

// ready waits until every area was brought up.
func (d *running) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		server, err := client.New(d.socket).Server(ctx)
		if err == nil && server.Environment.SystemIsReady {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the daemon does not become ready: %w", errors.Join(err, ctx.Err()))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (d *running) stop() {
	_ = d.process.Signal(os.Interrupt) // it may have ended
	_ = d.process.Wait()
	_ = d.log.Close()
}

// settle is how long the daemon is left alone before its memory is looked at.
const settle = 5 * time.Second

// memory returns what of the daemon is in memory, in bytes (proc_pid_status(5)).
func (d *running) memory(ctx context.Context) (int64, error) {
	select {
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case <-time.After(settle):
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.process.PID()))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			return kb << 10, err
		}
	}
	return 0, errors.New("the kernel does not say how much memory the daemon takes")
}

// programs returns how many programs the pretend machine has run. All that the
// daemon runs goes through the same door, on real machines too.
func (d *running) programs() (int, error) {
	b, err := os.ReadFile(d.root + systest.ProgramLog)
	return bytes.Count(b, []byte("\n")), err
}

// tick is the unit in which the kernel counts time for programs (sysconf(3),
// _SC_CLK_TCK: it is this on every Linux).
const tick = time.Second / 100

// cpu returns how long the daemon has worked so far: utime and stime of
// proc_pid_stat(5), which come after the name in brackets.
func (d *running) cpu() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.process.PID()))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("the kernel says %q of the daemon; want how long it worked", b)
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * tick, errors.Join(err1, err2)
}

// busy is how many processes of this host want a processor: with more than there
// are processors, all times are longer than they would be.
func busy() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	load, _, _ := strings.Cut(string(b), " ")
	return load
}
