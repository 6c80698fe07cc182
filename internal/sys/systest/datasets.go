package systest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/incusos/incusos/internal/sys"
)

// destroy destroys a dataset with all below it, as `zfs destroy -r` does. The
// caller holds mu.
func (z *ZFS) destroy(name string) error {
	pool, _, _ := strings.Cut(name, "/")
	p := z.imported[pool]
	if p == nil || !slices.Contains(p.Datasets, name) {
		return &sys.ExecError{Name: "zfs", Code: 1, Stderr: fmt.Sprintf("cannot open '%s': dataset does not exist", name)}
	}
	p.Datasets = slices.DeleteFunc(p.Datasets, func(n string) bool { return n == name || strings.HasPrefix(n, name+"/") })
	return z.save(p)
}
