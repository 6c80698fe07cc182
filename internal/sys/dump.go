package sys

import (
	"errors"

	"github.com/vishvananda/netlink"
)

// attempts is how often a list of the kernel's is asked for. It says that a list
// is not whole when a device came or went meanwhile, as they do while instances
// start.
const attempts = 20

// whole asks for a list until none of it changed meanwhile.
func whole[T any](list func() ([]T, error)) (all []T, err error) {
	for range attempts {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
	return nil, err
}
