package apps_test

import "github.com/incusos/incusos/internal/sys"

// full is file systems on which there is no room.
type full struct{ sys.Mounter }

func (full) Usage(string) (size, free uint64, err error) { return 4 << 30, 1 << 20, nil }
