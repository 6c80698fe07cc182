package vm

import "regexp"

// What the guest says about itself on the serial port. Packages install, early
// and console choose the words; test/vm notices a difference.
// What goes by way of the kernel's log has a time and a program before it.
var (
	said        = regexp.MustCompile(`\bincus-os: (.*)`)
	installed   = regexp.MustCompile(`\bincus-os: install: done on \S+; remove the medium`)
	ready       = regexp.MustCompile(`\bincus-os: \S+ (\S+) is ready: (https://[^\s,]+:\d+)`)
	refused     = regexp.MustCompile(`\bincus-os: cannot install: (.*)`)
	unbootable  = regexp.MustCompile(`\bincus-os: (?:IncusOS does not start|cannot start|this machine cannot start)\b`)
	kernelPanic = regexp.MustCompile(`Kernel panic - not syncing: (.*)`)
)
