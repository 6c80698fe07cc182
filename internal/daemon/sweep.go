package daemon

import (
	"log/slog"

	"github.com/incusos/incusos/internal/sys"
)

// written are the directories that this program replaces files in and that
// outlive a start.
var written = []string{"/var/lib/incus-os", "/var/lib/incus-os-extensions", "/etc"}

// sweep removes what the last run could not finish writing when it was cut: some
// of that is as long as an image, and some holds half a key.
func sweep(files sys.Dir) {
	for _, dir := range written {
		swept, err := files.Sweep(dir)
		if len(swept) > 0 {
			slog.Info("Removed what was not written to its end", "files", swept)
		}
		if err != nil {
			slog.Warn("Cannot remove all of what was not written to its end", "dir", dir, "err", err)
		}
	}
}
