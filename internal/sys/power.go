package sys

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Power is what is left of the machine when its services are not: the install
// medium, and with it /usr, is gone when the installed system is to be started.
type Power interface {
	// Pin keeps this program in memory, so that it goes on without its disk.
	Pin() error
	// Restart flushes what is written and restarts the machine at once, without
	// stopping anything. It returns only when that did not work.
	Restart() error
}

type kernelPower struct{}

func (kernelPower) Pin() error {
	if err := unix.Mlockall(unix.MCL_CURRENT); err != nil {
		return fmt.Errorf("keeping this program in memory: %w", err)
	}
	return nil
}

func (kernelPower) Restart() error {
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART); err != nil {
		return fmt.Errorf("restarting the machine: %w", err)
	}
	return nil
}
