package image

import (
	"cmp"
	"fmt"
	"runtime"
)

// An arch holds the names of one architecture. Those inside the image are in
// image/mkosi.conf.d.
type arch struct {
	name   string   // as Go says it
	mkosi  string   // as mkosi and systemd say it
	debian string   // as Debian says it
	qemu   []string // packages that run such a machine
}

// archOf returns the names of an architecture; "" is this machine's.
func archOf(name string) (arch, error) {
	switch name = cmp.Or(name, runtime.GOARCH); name {
	case "amd64":
		return arch{name: name, mkosi: "x86-64", debian: "amd64", qemu: []string{"qemu-system-x86", "ovmf"}}, nil
	}
	return arch{}, fmt.Errorf("no image can be built for architecture %q yet; want amd64", name)
}
