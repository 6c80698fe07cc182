package debug

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Processes returns what runs as a table, children below their parents: what
// `ps fauxww` prints, without starting it.
func (d *Debug) Processes(context.Context) (string, error) {
	t, err := d.newTable(time.Now())
	if err != nil {
		return "", err
	}
	entries, err := d.host.Files.ReadDir("/proc")
	if err != nil {
		return "", fmt.Errorf("listing processes: %w", err)
	}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		switch p, err := d.process(e.Name()); {
		case err == nil:
			t.add(p)
		case !gone(err):
			return "", fmt.Errorf("reading process %s: %w", e.Name(), err)
		}
	}
	return t.String(), nil
}

// A processTable is the processes of a machine at one moment.
type processTable struct {
	now    time.Time
	booted time.Time
	uptime float64 // seconds
	memory uint64  // bytes
	users  map[string]string

	all      map[int]process
	children map[int][]int // by parent
}

// newTable reads what the columns are made of.
func (d *Debug) newTable(now time.Time) (*processTable, error) {
	t := &processTable{now: now, all: make(map[int]process), children: make(map[int][]int)}
	up, err := d.host.Files.ReadFile("/proc/uptime")
	if err != nil {
		return nil, fmt.Errorf("reading the uptime: %w", err)
	}
	first, _, _ := strings.Cut(string(up), " ")
	if t.uptime, err = strconv.ParseFloat(first, 64); err != nil {
		return nil, fmt.Errorf("reading the uptime: %w", err)
	}
	t.booted = now.Add(-time.Duration(t.uptime * float64(time.Second)))
	memory, err := d.host.Files.ReadFile("/proc/meminfo")
	if err != nil {
		return nil, fmt.Errorf("reading the size of the memory: %w", err)
	}
	t.memory = memoryTotal(string(memory))
	passwd, _ := d.host.Files.ReadFile("/etc/passwd") // without it users are numbers
	t.users = userNames(string(passwd))
	return t, nil
}

// memoryTotal reads /proc/meminfo: "MemTotal:    4194304 kB".
func memoryTotal(meminfo string) uint64 {
	for line := range strings.Lines(meminfo) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "MemTotal:" {
			kib, _ := strconv.ParseUint(fields[1], 10, 54)
			return kib << 10
		}
	}
	return 0
}

// userNames maps numbers to names (passwd(5)).
func userNames(passwd string) map[string]string {
	names := make(map[string]string)
	for line := range strings.Lines(passwd) {
		if fields := strings.Split(line, ":"); len(fields) > 2 {
			names[fields[2]] = printable(fields[0])
		}
	}
	return names
}

func (t *processTable) add(p process) {
	t.all[p.pid] = p
	t.children[p.parent] = append(t.children[p.parent], p.pid)
}

const processHeading = "USER         PID %CPU %MEM    VSZ   RSS TTY      STAT START   TIME COMMAND\n"

// String prints the table: first those whose parent is not in it. The processes
// were not read at one moment; if their parents go in a circle, one of them is
// taken for the first.
func (t *processTable) String() string {
	var b strings.Builder
	b.WriteString(processHeading)
	printed := make(map[int]bool)
	pids := make([]int, 0, len(t.all))
	for pid := range t.all {
		pids = append(pids, pid)
	}
	slices.Sort(pids)
	for _, pid := range pids {
		if _, ok := t.all[t.all[pid].parent]; !ok {
			t.print(&b, pid, "", "", printed)
		}
	}
	for _, pid := range pids {
		t.print(&b, pid, "", "", printed)
	}
	return b.String()
}

// print writes a process and its children. Own is drawn before its command, and
// below before those of its children.
func (t *processTable) print(b *strings.Builder, pid int, own, below string, printed map[int]bool) {
	if printed[pid] {
		return
	}
	printed[pid] = true
	t.line(b, t.all[pid], own)
	children := slices.Sorted(slices.Values(t.children[pid]))
	for i, child := range children {
		next := below + " |  "
		if i == len(children)-1 {
			next = below + "    "
		}
		t.print(b, child, below+` \_ `, next, printed)
	}
}

func (t *processTable) line(b *strings.Builder, p process, drawn string) {
	seconds := float64(p.ticks) / ticksPerSecond
	age := t.uptime - float64(p.started)/ticksPerSecond
	cpu, memory := 0.0, 0.0
	if age > 0 {
		cpu = 100 * seconds / age
	}
	resident := p.resident * uint64(os.Getpagesize()) //nolint:gosec // a small number
	if t.memory > 0 {
		memory = 100 * float64(resident) / float64(t.memory)
	}
	fmt.Fprintf(b, "%-8s %7d %4.1f %4.1f %6d %5d %-8s %-4s %-5s %6s %s%s\n",
		t.user(p.uid), p.pid, cpu, memory, p.virtual>>10, resident>>10,
		terminal(p.terminal), p.flags(), t.start(p), fmt.Sprintf("%d:%02d", int(seconds)/60, int(seconds)%60),
		drawn, cmp.Or(p.command, "["+p.name+"]"))
}

// user returns the name of a user, cut as ps does it.
func (t *processTable) user(uid string) string {
	name := cmp.Or(t.users[uid], uid)
	if len(name) > 8 {
		return name[:7] + "+"
	}
	return name
}

// start is when p started: the time if that was today, else the day.
func (t *processTable) start(p process) string {
	at := t.booted.Add(time.Duration(p.started) * (time.Second / ticksPerSecond)) //nolint:gosec // since boot
	if at.Format(time.DateOnly) == t.now.Format(time.DateOnly) {
		return at.Format("15:04")
	}
	return at.Format("Jan02")
}

// flags is the state of p and its marks, as in the column STAT of ps(1).
func (p process) flags() string {
	s := p.state
	switch {
	case p.nice < 0:
		s += "<"
	case p.nice > 0:
		s += "N"
	}
	if p.session == p.pid {
		s += "s"
	}
	if p.threads > 1 {
		s += "l"
	}
	if p.foreground == p.group {
		s += "+"
	}
	return s
}

// terminal names a device by its number (proc_pid_stat(5), tty_nr; kernel
// documentation, admin-guide/devices).
func terminal(number int) string {
	major, minor := number>>8&0xfff, number&0xff|number>>12&0xfff00
	switch {
	case number == 0:
		return "?"
	case major == 4 && minor < 64:
		return fmt.Sprintf("tty%d", minor)
	case major == 4:
		return fmt.Sprintf("ttyS%d", minor-64)
	case major >= 136 && major <= 143:
		return fmt.Sprintf("pts/%d", (major-136)<<8+minor)
	}
	return fmt.Sprintf("%d:%d", major, minor)
}
