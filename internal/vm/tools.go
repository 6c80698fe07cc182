package vm

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/incusos/incusos/internal/sys"
)

// tools is a tree of Debian with QEMU, its firmware and swtpm in it.
type tools struct {
	root string
	arch arch
}

// openTools checks that a tree has what a machine needs.
func openTools(root string, a arch) (tools, error) {
	if root == "" {
		return tools{}, fmt.Errorf("no tools tree given; want the directory of one that has QEMU, OVMF and swtpm")
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return tools{}, err
	}
	t := tools{root, a}
	needed := []string{a.loader, a.qemu, "/usr/bin/swtpm", "/usr/bin/swtpm_setup", a.firmware.secure, a.firmware.insecure, a.firmware.vars}
	for _, name := range needed {
		if _, err := os.Stat(t.path(name)); err != nil {
			return tools{}, fmt.Errorf("tools tree %s is not complete: %w", root, err)
		}
	}
	return t, nil
}

func (t tools) path(name string) string { return filepath.Join(t.root, name) }

// load returns the command line that runs a program of the tree.
func (t tools) load(program string, args ...string) []string {
	var dirs []string
	for _, dir := range t.arch.libraries {
		dirs = append(dirs, t.path(dir))
	}
	line := []string{t.path(t.arch.loader), "--library-path", strings.Join(dirs, ":"), t.path(program)}
	return append(line, args...)
}

// command returns a program of the tree that runs to its end.
func (t tools) command(program string, args ...string) sys.Cmd {
	line := t.load(program, args...)
	return sys.Command(line[0], line[1:]...)
}

// service returns a program of the tree that runs beside this process: it has
// a session of its own, so that Ctrl-C reaches us alone and we can end it in
// good order, and it is killed with us, so that not even a crash leaves it
// behind (prctl(2), PR_SET_PDEATHSIG: the thread that started it counts as us,
// and Go keeps its threads). Both helpers become the program, so that its
// process id is what Start says.
func (t tools) service(program string, args ...string) sys.Cmd {
	line := t.load("/usr/bin/setsid", t.load(program, args...)...)
	return t.command("/usr/bin/setpriv", append([]string{"--pdeathsig", "TERM"}, line...)...)
}
