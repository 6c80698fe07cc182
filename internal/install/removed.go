package install

import (
	"context"
	"fmt"

	"github.com/incusos/incusos/internal/sys"
)

// WaitRemoved returns when the medium has been taken out: when its device is
// gone from /dev.
func WaitRemoved(ctx context.Context, files sys.Dir, medium sys.Disk) error {
	if err := sys.WaitGone(ctx, files, medium.Path); err != nil {
		return fmt.Errorf("waiting for the removal of %s: %w", medium.Path, err)
	}
	return nil
}
