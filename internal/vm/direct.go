package vm

import (
	"context"
	"slices"
)

// A Direct is a kernel that QEMU hands to the firmware, without a boot loader.
type Direct struct {
	Kernel      string // file
	Initrd      string // file
	CommandLine string
	Devices     []string // further arguments of QEMU, for what else the machine has
}

// StartDirect switches the machine on with a kernel of its own. The firmware is
// the same as ever; only systems that are compared with ours start this way.
func (m *Machine) StartDirect(ctx context.Context, d Direct) (*Running, error) {
	with := *m
	f := &with.tools.arch.firmware
	f.options = append(slices.Clone(f.options), "-kernel", d.Kernel, "-initrd", d.Initrd, "-append", d.CommandLine)
	f.options = append(f.options, d.Devices...)
	return with.Start(ctx, Boot{})
}
