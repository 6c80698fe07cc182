// Package resources looks at the hardware and describes it as Incus does.
//
// Everything is read from /sys and /proc when it is asked for, and kept nowhere;
// no program runs. What a machine does not have or does not tell is left empty:
// half an answer is better than none, so that nothing here is an error.
//
//	cpu.go      processors
//	memory.go   memory, by NUMA node
//	pci.go      PCI devices and graphics cards
//	network.go  network cards
//	storage.go  drives
//	usb.go      USB devices and serial ports
//	system.go   what the firmware says, and the load
//	parse.go    the forms of text that the kernel uses
//
// What the machine should do with its hardware belongs to the areas: packages
// network, storage and host beside this one.
package resources

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

// Read describes the machine with these files.
func Read(files sys.Dir) api.Resources {
	m := machine{files}
	r := api.Resources{
		CPU: m.cpu(), Memory: m.memory(), GPU: m.gpu(), Network: m.network(), Storage: m.storage(),
		USB: m.usb(), PCI: m.pci(), System: m.system(), Load: m.load(), Serial: m.serial(),
	}
	r.GPU.Total = uint64(len(r.GPU.Cards))
	r.Network.Total = uint64(len(r.Network.Cards))
	r.Storage.Total = uint64(len(r.Storage.Disks))
	r.USB.Total = uint64(len(r.USB.Devices))
	r.PCI.Total = uint64(len(r.PCI.Devices))
	r.Serial.Total = uint64(len(r.Serial.Devices))
	return r
}

// A machine reads its own description.
type machine struct{ files sys.Dir }

// text returns the content of a file, without blanks around it; "" if there is
// none.
func (m machine) text(name string) string {
	b, err := m.files.ReadFile(name)
	if err != nil {
		return "" // not every machine has every file
	}
	return strings.TrimSpace(strings.Trim(string(b), "\x00"))
}

func (m machine) number(name string) uint64 { return number(m.text(name)) }

// list returns the names in a directory, sorted as people count.
func (m machine) list(dir string) []string {
	entries, err := m.files.ReadDir(dir)
	if err != nil {
		return nil // not every machine has every directory
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(numbered(a), numbered(b)), strings.Compare(a, b))
	})
	return names
}

// numbered returns the number at the end of a name, for sorting: names without
// come first.
func numbered(name string) uint64 {
	return number(name[len(strings.TrimRight(name, "0123456789")):])
}

// link returns the last element of where a symlink leads, such as the name of a
// driver.
func (m machine) link(name string) string {
	to, err := m.files.Readlink(name)
	if err != nil {
		return ""
	}
	return path.Base(to)
}

// real returns where the symlink of a class or a bus leads: to the device in
// /sys/devices.
func (m machine) real(name string) string {
	to, err := m.files.Readlink(name)
	switch {
	case err != nil:
		return name
	case path.IsAbs(to):
		return path.Clean(to)
	}
	return path.Join(path.Dir(name), to)
}

// A place is where a device is plugged in.
type place struct {
	pci  string // directory of the closest PCI device; "" if it is on none
	usb  string // directory of the USB device; "" if it is on none
	addr string // of the PCI device
}

// where returns the place of a device in /sys/devices.
func (m machine) where(device string) (p place) {
	for dir := device; len(dir) > len("/sys/devices"); dir = path.Dir(dir) {
		if p.usb == "" && m.files.Exists(dir+"/busnum") {
			p.usb = dir
		}
		if p.pci == "" && pciAddress(path.Base(dir)) {
			p.pci, p.addr = dir, path.Base(dir)
		}
	}
	return p
}

// usbAddress returns the address of the USB device of a place, "" if it has
// none.
func (m machine) usbAddress(p place) string {
	if p.usb == "" {
		return ""
	}
	return m.text(p.usb+"/busnum") + ":" + m.text(p.usb+"/devnum")
}

// driver returns the driver of a device and its version.
func (m machine) driver(device string) (name, version string) {
	name = m.link(device + "/driver")
	if name == "" {
		return "", ""
	}
	module := cmp.Or(m.link(device+"/driver/module"), name)
	return name, cmp.Or(m.text("/sys/module/"+module+"/version"), m.text("/proc/sys/kernel/osrelease"))
}
