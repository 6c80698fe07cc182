// Command api measures the daemon on a pretend machine with many drives and
// network cards: what it takes of memory and of the image, and how fast it
// answers what is asked most.
//
//	go run ./bench/api [-drives 100] [-nics 20] [-clients 2] [-n 2000]
//
// It builds incus-osd as the image does, starts it in a directory of its own,
// and speaks to it over the unix socket. Everything of the daemon is real but
// the machine; programs are models that take no time, so that their number is
// what counts: a request must not cost one. Nothing is asserted: a busy host
// makes other times, which is why its load is printed, and what the daemon worked
// for a request (cpu). The aims of the project are beside the figures.
//
//	main.go     what is measured, in which order
//	machine.go  the pretend machine, and its daemon
//	load.go     requests and their times
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"text/tabwriter"
	"time"
)

// The aims, which the table repeats.
const (
	aimRSS    = 25 << 20
	aimBinary = 20 << 20
	aimP99    = 5 * time.Millisecond
)

// routes are the ten that are asked most: by the console and web pages, by
// incusd while it starts, and by those who watch machines.
func routes() []string {
	return []string{
		"/1.0", "/1.0/system/network", "/1.0/system/storage", "/1.0/system/security", "/1.0/system/kernel",
		"/1.0/system/resources", "/1.0/applications", "/1.0/applications/incus", "/1.0/services/iscsi", "/1.0/tasks",
	}
}

// options are the flags.
type options struct {
	drives, nics, clients, requests int
	longest                         time.Duration
}

func main() {
	var o options
	flag.IntVar(&o.drives, "drives", 100, "pretend `N` drives")
	flag.IntVar(&o.nics, "nics", 20, "pretend `N` network cards")
	flag.IntVar(&o.clients, "clients", 2, "ask from `N` clients at once")
	flag.IntVar(&o.requests, "n", 2000, "ask each route `N` times")
	flag.DurationVar(&o.longest, "longest", 10*time.Second, "stop asking a route after `TIME`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "api: cannot measure:", err)
		os.Exit(1) //nolint:gocritic // the signals end with the process
	}
}

func run(ctx context.Context, o options, out io.Writer) error {
	if o.drives < 1 || o.nics < 1 || o.clients < 1 || o.requests < 1 {
		return fmt.Errorf("%+v: want 1 or more of everything", o)
	}
	dir, err := os.MkdirTemp("", "bench-api-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	d, err := startDaemon(ctx, dir, o)
	if err != nil {
		return err
	}
	defer d.stop()
	idle, err := d.memory(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d drives, %d network cards, %d clients, %d processors, load %s\n\n", o.drives, o.nics, o.clients, runtime.NumCPU(), busy())
	if err := load(ctx, d, o, out); err != nil {
		return err
	}
	after, err := d.memory(ctx)
	if err != nil {
		return err
	}
	return summary(out, d.binary, idle, after)
}

// load asks all routes and prints a line for each.
func load(ctx context.Context, d *running, o options, out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "status\trequests\t/s\tp50\tp99\tlongest\tcpu\tbytes\tprograms\t  GET")
	for _, route := range routes() {
		m, err := d.ask(ctx, route, o)
		if err != nil {
			return fmt.Errorf("GET %s: %w", route, err)
		}
		remark := ""
		if p := m.percentile(99); p > aimP99 {
			remark = fmt.Sprintf(" (p99 above %v)", aimP99)
		}
		fmt.Fprintf(w, "%d\t%d\t%.0f\t%v\t%v\t%v\t%v\t%d\t%d\t  %s%s\n", m.status, len(m.times), m.rate(),
			m.percentile(50), m.percentile(99), m.percentile(100), m.cpu, m.bytes, m.programs, route, remark)
	}
	return w.Flush()
}

func summary(out io.Writer, binary, idle, after int64) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w)
	for _, row := range []struct {
		what       string
		value, aim int64
	}{{"resident when idle", idle, aimRSS}, {"resident after that", after, aimRSS}, {"size of the program", binary, aimBinary}} {
		verdict := "as aimed at"
		if row.value > row.aim {
			verdict = "too much"
		}
		fmt.Fprintf(w, "%s\t%.1f MiB\taim %d MiB\t%s\n", row.what, float64(row.value)/(1<<20), row.aim>>20, verdict)
	}
	return w.Flush()
}
