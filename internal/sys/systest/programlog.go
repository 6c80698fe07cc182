package systest

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// ProgramLog is the file of a pretend machine that lists the programs it has
// run, in its tree.
const ProgramLog = "/run/pretend/programs"

// LogPrograms has every program that is run from now on added to ProgramLog, a
// line each: a benchmark cannot look into the models of another process.
func (rig *Rig) LogPrograms() error {
	name := rig.Host.Files.Path(ProgramLog)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return fmt.Errorf("keeping a list of programs: %w", err)
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644) // open as long as the process runs
	if err != nil {
		return fmt.Errorf("keeping a list of programs: %w", err)
	}
	rig.Programs.mu.Lock()
	defer rig.Programs.mu.Unlock()
	rig.Programs.log = f
	return nil
}

// note keeps a command line. The caller holds mu.
func (r *Programs) note(line string) {
	r.ran = append(r.ran, line)
	if r.log != nil {
		_, _ = io.WriteString(r.log, line+"\n") // the count is wrong then, which its reader notices
	}
}
