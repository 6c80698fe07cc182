package debug

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"syscall"
)

// A process is what /proc says of one (proc_pid_stat(5), proc_pid_status(5)).
type process struct {
	pid, parent, group, session int
	foreground                  int    // process group in the foreground of its terminal
	terminal                    int    // device number; 0: none
	name                        string // of the program, at most 15 bytes
	state                       string // a letter
	nice, threads               int
	ticks                       uint64 // of processor time
	started                     uint64 // ticks after boot
	virtual                     uint64 // bytes
	resident                    uint64 // pages
	uid                         string
	command                     string // with arguments; "" for a thread of the kernel
}

// ticksPerSecond is USER_HZ, which is the same on all machines there are images for.
const ticksPerSecond = 100

// process reads a process. One that is gone meanwhile is fs.ErrNotExist.
func (d *Debug) process(pid string) (process, error) {
	dir := "/proc/" + pid
	stat, err := d.host.Files.ReadFile(dir + "/stat")
	if err != nil {
		return process{}, err
	}
	p, err := parseStat(stat)
	if err != nil {
		return process{}, fmt.Errorf("%s/stat: %w", dir, err)
	}
	status, err := d.host.Files.ReadFile(dir + "/status")
	if err != nil {
		return process{}, err
	}
	p.uid = owner(string(status))
	command, err := d.host.Files.ReadFile(dir + "/cmdline")
	if err != nil {
		return process{}, err
	}
	p.command = printable(strings.TrimSpace(string(bytes.ReplaceAll(command, []byte{0}, []byte{' '}))))
	return p, nil
}

// printable replaces what would spoil a table. Programs choose their names
// and arguments themselves.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// gone reports whether err means that a process ended while it was read.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}

// parseStat reads the content of /proc/PID/stat: the number, the name in
// brackets, which may itself hold brackets and blanks, the state, then numbers.
func parseStat(b []byte) (process, error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return process{}, errors.New("has no name in brackets")
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:open])))
	if err != nil || pid < 1 {
		return process{}, errors.New("does not begin with the number of a process")
	}
	const numbers = 21 // after the state, up to the resident pages
	fields := strings.Fields(string(b[end+1:]))
	if len(fields) < 1+numbers {
		return process{}, fmt.Errorf("has %d fields behind the name; want %d", len(fields), 1+numbers)
	}
	n := &numberList{fields: fields[1:]}
	p := process{pid: pid, name: printable(string(b[open+1 : end])), state: fields[0]}
	p.parent, p.group, p.session, p.terminal, p.foreground = n.int(4), n.int(5), n.int(6), n.int(7), n.int(8)
	p.ticks = n.uint(14) + n.uint(15)
	p.nice, p.threads = n.int(19), n.int(20)
	p.started, p.virtual, p.resident = n.uint(22), n.uint(23), n.uint(24)
	return p, n.err
}

// A numberList reads numbers until the first that is none. Numbers of fields
// are those of the manual page.
type numberList struct {
	fields []string
	err    error
}

func (n *numberList) int(field int) int {
	v, err := strconv.Atoi(n.fields[field-4])
	n.note(field, err)
	return v
}

func (n *numberList) uint(field int) uint64 {
	v, err := strconv.ParseUint(n.fields[field-4], 10, 64)
	n.note(field, err)
	return v
}

func (n *numberList) note(field int, err error) {
	if err != nil && n.err == nil {
		n.err = fmt.Errorf("field %d: %q is no number", field, n.fields[field-4])
	}
}

// owner returns the effective user from /proc/PID/status, "?" if it is not there.
func owner(status string) string {
	for line := range strings.Lines(status) {
		if ids, ok := strings.CutPrefix(line, "Uid:"); ok {
			if fields := strings.Fields(ids); len(fields) > 1 {
				return fields[1]
			}
		}
	}
	return "?"
}
