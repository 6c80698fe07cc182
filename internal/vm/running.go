package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/incusos/incusos/internal/sys"
)

// Logs of a machine, in its directory. All but the last are added to by each
// start.
const (
	serialLog = "serial.log"   // what the serial port printed, byte by byte
	timesLog  = "serial.times" // the same as lines, with the time since the start
	qemuLog   = "qemu.log"
	swtpmLog  = "swtpm.log"
)

// Logs returns the names of the logs in the directory of a machine.
func Logs() []string { return []string{serialLog, timesLog, qemuLog, swtpmLog} }

// A Running machine is one that is switched on. It ends with Stop, or by
// itself when the guest switches it off.
type Running struct {
	Console *Console
	Monitor *Monitor
	Accel   Accel
	Scale   Scale
	Port    int // on 127.0.0.1, leads to GuestPort

	sockets sockets
	log     *os.File // of QEMU
	times   *os.File
	cancel  context.CancelFunc
	qemu    sys.Process
	tpm     sys.Process
	done    chan struct{} // closed when QEMU has ended; nil before it was started
	err     error         // how it did
	stop    sync.Once
}

// Start switches the machine on. Its processes end with ctx at the latest.
func (m *Machine) Start(ctx context.Context, b Boot) (*Running, error) {
	a, err := m.accel(ctx)
	if err != nil {
		return nil, fmt.Errorf("starting the machine in %s: %w", m.dir, err)
	}
	r, err := m.start(ctx, b, a)
	if err != nil {
		return nil, fmt.Errorf("starting the machine in %s: %w", m.dir, err)
	}
	return r, nil
}

func (m *Machine) start(ctx context.Context, b Boot, a Accel) (*Running, error) {
	scale, err := a.Scale()
	if err != nil {
		return nil, err
	}
	r := &Running{Accel: a, Scale: scale, Port: m.opt.Port}
	life, cancel := context.WithCancel(ctx)
	r.cancel = cancel
	if err := m.bringUp(life, r, b); err != nil {
		r.Stop()
		return nil, err
	}
	return r, nil
}

// bringUp starts the processes and takes hold of their ends. What it leaves
// behind when it does not come through is Stop's to clean up.
func (m *Machine) bringUp(ctx context.Context, r *Running, b Boot) error {
	if err := m.prepare(r); err != nil {
		return err
	}
	if !b.NoTPM {
		if err := m.startTPM(ctx, r); err != nil {
			return err
		}
	}
	args := m.arguments(b, r.Accel, r.sockets, r.Port)
	c := m.tools.service(m.tools.arch.qemu, args...)
	c.Stdout, c.Stderr = r.log, r.log
	p, err := m.opt.Exec.Start(ctx, c)
	if err != nil {
		return err
	}
	r.qemu, r.done = p, make(chan struct{})
	go func() {
		r.err = p.Wait()
		close(r.done)
	}()
	return r.connect(ctx)
}

// prepare opens the logs and finds a place for sockets and a port.
func (m *Machine) prepare(r *Running) (err error) {
	if r.sockets.dir, err = os.MkdirTemp("", "vm-"); err != nil {
		return err
	}
	if long := len(r.sockets.monitor()); long > 107 {
		return fmt.Errorf("%s is too long for a socket; set TMPDIR to a shorter directory", r.sockets.dir)
	}
	if r.log, err = m.openLog(qemuLog); err != nil {
		return err
	}
	if r.times, err = m.openLog(timesLog); err != nil {
		return err
	}
	r.Port, err = freePort(r.Port)
	return err
}

func (m *Machine) openLog(name string) (*os.File, error) {
	return os.OpenFile(m.path(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
}

// freePort returns port if nobody listens on it at the moment; 0 stands for any
// such port.
func freePort(port int) (int, error) {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return 0, fmt.Errorf("taking port %d: %w; choose another one, or 0 for any", port, err)
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

func (m *Machine) startTPM(ctx context.Context, r *Running) error {
	if err := m.prepareTPM(ctx); err != nil {
		return err
	}
	p, err := m.opt.Exec.Start(ctx, m.tools.service("/usr/bin/swtpm", "socket", "--tpm2", "--terminate",
		"--tpmstate", "dir="+m.path(tpmDir), "--ctrl", "type=unixio,path="+r.sockets.tpm(),
		"--log", "level=1,truncate,file="+m.path(swtpmLog)))
	if err != nil {
		return err
	}
	r.tpm = p
	return waitFor(ctx, "swtpm to open its socket", func() bool {
		_, err := os.Stat(r.sockets.tpm())
		return err == nil
	})
}

// connect takes hold of serial port and monitor and lets the guest begin.
func (r *Running) connect(ctx context.Context) error {
	serial, err := r.dial(ctx, r.sockets.serial())
	if err != nil {
		return err
	}
	r.Console = newConsole(serial, r.times, r.Scale)
	conn, err := r.dial(ctx, r.sockets.monitor())
	if err != nil {
		return err
	}
	if r.Monitor, err = newMonitor(ctx, conn); err != nil {
		return err
	}
	return r.Monitor.Execute(ctx, "cont", nil, nil)
}

// dial connects to a socket that QEMU is about to open.
func (r *Running) dial(ctx context.Context, path string) (io.ReadWriteCloser, error) {
	var conn net.Conn
	err := waitFor(ctx, "QEMU to open "+path, func() bool {
		var err error
		conn, err = (&net.Dialer{}).DialContext(ctx, "unix", path)
		return err == nil || r.ended()
	})
	if err == nil && conn == nil {
		err = fmt.Errorf("%w before it began: %w", ErrEnded, r.err)
	}
	return conn, err
}

// startTime is many times what QEMU and swtpm need to open their sockets.
const startTime = 30 * time.Second

func waitFor(ctx context.Context, what string, done func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTime, fmt.Errorf("not within %v", startTime))
	defer cancel()
	for !done() {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, context.Cause(ctx))
		}
	}
	return nil
}

func (r *Running) ended() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// PIDs returns the process ids of the machine.
func (r *Running) PIDs() []int {
	var ids []int
	for _, p := range []sys.Process{r.qemu, r.tpm} {
		if p != nil {
			ids = append(ids, p.PID())
		}
	}
	return ids
}

// Done is closed when the machine is off.
func (r *Running) Done() <-chan struct{} { return r.done }

// Wait waits until the guest has switched the machine off and cleans up. The
// timeout is scaled like those of Console.Expect.
func (r *Running) Wait(ctx context.Context, timeout time.Duration) error {
	timeout = r.Scale.Of(timeout)
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("still on after %v", timeout))
	defer cancel()
	select {
	case <-r.done:
		r.Stop()
		return r.err
	case <-ctx.Done():
		return fmt.Errorf("waiting for the machine to switch off: %w; it last printed:\n%s", context.Cause(ctx), r.Console.Tail(30))
	}
}

// PowerOff asks the guest to switch the machine off and waits until it has.
func (r *Running) PowerOff(ctx context.Context, timeout time.Duration) error {
	if err := r.Monitor.PowerButton(ctx); err != nil && !errors.Is(err, ErrEnded) {
		return err
	}
	return r.Wait(ctx, timeout)
}

// Stop pulls the plug and waits until nothing of the running machine is left
// but its logs. It may be called more than once.
func (r *Running) Stop() {
	r.stop.Do(func() {
		r.cancel()
		if r.done != nil {
			<-r.done
		}
		if r.tpm != nil {
			_ = r.tpm.Wait() // ended by us or by QEMU's leaving, in whatever way
		}
		if r.Console != nil {
			<-r.Console.over
		}
		for _, c := range r.closers() {
			_ = c.Close() // nothing that was written here is needed any more
		}
		_ = os.RemoveAll(r.sockets.dir)
	})
}

func (r *Running) closers() []io.Closer {
	var all []io.Closer
	if r.Console != nil {
		all = append(all, r.Console.conn)
	}
	if r.Monitor != nil {
		all = append(all, r.Monitor.conn)
	}
	for _, f := range []*os.File{r.log, r.times} {
		if f != nil {
			all = append(all, f)
		}
	}
	return all
}
