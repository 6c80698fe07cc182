package vm

import (
	"cmp"
	"fmt"
	"runtime"
)

// An arch is everything that differs between architectures. Paths are those
// of the tools tree.
type arch struct {
	name      string   // as Go says it
	loader    string   // dynamic loader
	libraries []string // where the loader looks
	qemu      string
	data      []string // where QEMU looks for ROMs
	machine   string   // with what protects the variables of Secure Boot
	tpm       string   // device
	display   string   // device
	firmware  firmware
}

// firmware names the files of OVMF or its relatives.
type firmware struct {
	secure   string   // with Secure Boot
	insecure string   // without it
	vars     string   // empty variables, which is setup mode
	options  []string // let nothing but the firmware write its variables
}

// archOf returns the table of an architecture; "" is this machine's.
func archOf(name string) (arch, error) {
	switch name = cmp.Or(name, runtime.GOARCH); name {
	case "amd64":
		return arch{
			name:      name,
			loader:    "/usr/lib64/ld-linux-x86-64.so.2",
			libraries: []string{"/usr/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu/swtpm"},
			qemu:      "/usr/bin/qemu-system-x86_64",
			data:      []string{"/usr/share/qemu", "/usr/share/seabios"},
			machine:   "q35,smm=on,vmport=off",
			tpm:       "tpm-crb",
			display:   "VGA",
			firmware: firmware{
				secure:   "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
				insecure: "/usr/share/OVMF/OVMF_CODE_4M.fd",
				vars:     "/usr/share/OVMF/OVMF_VARS_4M.fd",
				options:  []string{"-global", "driver=cfi.pflash01,property=secure,value=on"},
			},
		}, nil
	}
	return arch{}, fmt.Errorf("no machine of architecture %q can be run yet; want amd64", name)
}
