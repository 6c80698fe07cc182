package vm

import (
	"fmt"
	"path/filepath"
	"strconv"
)

// A Boot is how a machine is started this time.
type Boot struct {
	Medium       string // image of an install medium to plug in; "" is none
	NoTPM        bool   // the machine has no TPM
	NoSecureBoot bool   // the firmware does not know Secure Boot
}

// medium is QEMU's id of the install medium.
const medium = "medium"

// sockets are the ends of a running QEMU, in a directory with a short name: a
// unix socket's has 107 characters at most.
type sockets struct{ dir string }

func (s sockets) serial() string  { return filepath.Join(s.dir, "serial") }
func (s sockets) monitor() string { return filepath.Join(s.dir, "qmp") }
func (s sockets) tpm() string     { return filepath.Join(s.dir, "tpm") }

// arguments returns the command line of QEMU. The guest does not run before
// the monitor says so, when all ends are in somebody's hands.
func (m *Machine) arguments(b Boot, a Accel, s sockets, port int) []string {
	args := []string{"-S", "-nodefaults", "-no-user-config", "-display", "none", "-name", "incusos"}
	for _, dir := range m.tools.arch.data {
		args = append(args, "-L", m.tools.path(dir))
	}
	args = append(args, a.options(m.tools.arch.name)...)
	args = append(args, "-machine", m.tools.arch.machine, "-smp", strconv.Itoa(m.opt.CPUs), "-m", strconv.Itoa(m.opt.Memory))
	args = append(args, m.firmwareArguments(b)...)
	args = append(args,
		"-qmp", "unix:"+s.monitor()+",server=on,wait=off",
		"-chardev", fmt.Sprintf("socket,id=serial,path=%s,server=on,wait=off,logfile=%s,logappend=on", s.serial(), m.path(serialLog)),
		"-serial", "chardev:serial",
		"-device", m.tools.arch.display,
		"-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng",
		"-netdev", fmt.Sprintf("user,id=net,hostfwd=tcp:127.0.0.1:%d-:%d", port, GuestPort),
		"-device", "virtio-net-pci,netdev=net,romfile=")
	if !b.NoTPM {
		args = append(args, "-chardev", "socket,id=tpm,path="+s.tpm(),
			"-tpmdev", "emulator,id=tpm,chardev=tpm", "-device", m.tools.arch.tpm+",tpmdev=tpm")
	}
	args = append(args, m.diskArguments()...)
	return append(args, mediumArguments(b)...)
}

func (m *Machine) firmwareArguments(b Boot) []string {
	f := m.tools.arch.firmware
	code, options := f.secure, f.options
	if b.NoSecureBoot {
		code, options = f.insecure, nil
	}
	return append([]string{
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file=" + m.tools.path(code),
		"-drive", "if=pflash,unit=1,format=raw,file=" + m.path(varsFile),
	}, options...)
}

// diskArguments let the host lose what was written in a crash of its own: a
// crash of the guest is all that a test looks at.
func (m *Machine) diskArguments() []string {
	var args []string
	for i, d := range m.opt.Disks {
		args = append(args,
			"-drive", fmt.Sprintf("if=none,id=%s,format=raw,cache=unsafe,discard=unmap,file=%s", d.Name, m.Disk(d.Name)),
			"-device", fmt.Sprintf("virtio-blk-pci,drive=%s,serial=%s,bootindex=%d", d.Name, d.Name, i+1))
	}
	return args
}

// mediumArguments plug the medium in as a stick that boots first. What the
// guest writes to it is lost, so that the file can be used again.
func mediumArguments(b Boot) []string {
	if b.Medium == "" {
		return nil
	}
	return []string{
		"-device", "qemu-xhci",
		"-drive", "if=none,id=medium-data,format=raw,snapshot=on,file=" + b.Medium,
		"-device", "usb-storage,id=" + medium + ",drive=medium-data,removable=on,bootindex=0",
	}
}
