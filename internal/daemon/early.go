package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/incusos/incusos/internal/sys"
)

// earlyFile is written in the initrd, before this process starts.
const earlyFile = "/run/incus-os/early.json"

// What a machine was started for.
const (
	modeRun     = "run"
	modeInstall = "install"
)

// early is what the early boot found out, as far as it matters here; its form
// is package early's.
type early struct {
	Mode     string   `json:"mode"`      // "run" or "install"
	BootDisk string   `json:"boot_disk"` // such as "/dev/vda"
	Warnings []string `json:"warnings"`  // sentences for the operator
}

// readEarly returns what the early boot found out. Without its file the machine
// is one that runs: that is so on a pretend machine.
func readEarly(files sys.Dir) (early, error) {
	e := early{Mode: modeRun}
	b, err := files.ReadFile(earlyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return e, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &e)
	}
	if err != nil {
		return e, fmt.Errorf("reading %s: %w", earlyFile, err)
	}
	if e.Mode != modeRun && e.Mode != modeInstall {
		return e, fmt.Errorf("reading %s: mode %q; want %q or %q", earlyFile, e.Mode, modeRun, modeInstall)
	}
	return e, nil
}
