package api

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Validate reports the first thing in c that cannot work on any machine, as a
// FieldError. What depends on the machine is judged by the area.
func (c SystemKernelConfig) Validate() error {
	if err := validateConsoles(c.Console); err != nil {
		return err
	}
	if err := validateModules(c.BlacklistModules); err != nil {
		return err
	}
	if c.CPU != nil && !kernelWord(c.CPU.ScalingGovernor) {
		return Fieldf("cpu.scaling_governor", "%q is no governor; want one such as %q", c.CPU.ScalingGovernor, "performance")
	}
	if err := c.Memory.validate(); err != nil {
		return err
	}
	if err := c.Network.validate(); err != nil {
		return err
	}
	if err := c.PCI.validate(); err != nil {
		return err
	}
	return c.ZFS.validate()
}

// kernelWord reports whether s can be the name of something in the kernel. It
// may be empty.
func kernelWord(s string) bool { return only(s, "_-") && len(s) < 56 }

// BaudRates returns the speeds that a serial port can have, in bits a second.
func BaudRates() []int {
	return []int{1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200, 230400, 460800, 500000, 576000, 921600, 1000000, 1500000}
}

func validateConsoles(consoles []KernelConsole) error {
	seen := make(map[string]int)
	for i, c := range consoles {
		field := fmt.Sprintf("console[%d]", i)
		name, ok := strings.CutPrefix(c.Device, "/dev/")
		if !ok || name == "" || !only(name, "") {
			return Fieldf(field+".device", "%q is no serial port; want one such as %q", c.Device, "/dev/ttyS0")
		}
		if err := onceIn(seen, c.Device, "console", field+".device", i); err != nil {
			return err
		}
		if c.BaudRate != 0 && !slices.Contains(BaudRates(), c.BaudRate) {
			return Fieldf(field+".baud_rate", "%d is no speed of a serial port; want one such as 115200, or 0 to leave it", c.BaudRate)
		}
	}
	return nil
}

// onceIn refuses a value that an earlier element of a list has already.
func onceIn(seen map[string]int, value, list, field string, i int) error {
	if first, ok := seen[value]; ok {
		return Fieldf(field, "%q is already in %s[%d]", value, list, first)
	}
	seen[value] = i
	return nil
}

func validateModules(modules []string) error {
	seen := make(map[string]int)
	for i, m := range modules {
		field := fmt.Sprintf("blacklist_modules[%d]", i)
		if m == "" || !kernelWord(m) {
			return Fieldf(field, "%q is no module; want a name such as %q", m, "nouveau")
		}
		if err := onceIn(seen, strings.ReplaceAll(m, "-", "_"), "blacklist_modules", field, i); err != nil {
			return err
		}
	}
	return nil
}

func (m *KernelMemory) validate() error {
	if m == nil {
		return nil
	}
	if m.PersistentHugepages < 0 {
		return Fieldf("memory.persistent_hugepages", "%d is negative; want the number of pages, or 0 for none", m.PersistentHugepages)
	}
	size, err := sizeField("memory.zram_swap_size", m.ZramSwapSize)
	if err != nil {
		return err
	}
	if size > 0 && size < minZram {
		return Fieldf("memory.zram_swap_size", "%q is too little to be of use; want 16MiB or more, or \"0\" for none", m.ZramSwapSize)
	}
	return nil
}

const (
	minZram   = 16 << 20
	minARC    = 64 << 20  // what ZFS refuses to go below
	minBuffer = 4 << 10   // a page
	maxInt    = 1<<31 - 1 // the kernel's int
)

func (n *KernelNetwork) validate() error {
	if n == nil {
		return nil
	}
	if n.BufferSize != 0 && (n.BufferSize < minBuffer || n.BufferSize > maxInt) {
		return Fieldf("network.buffer_size", "%d is out of range; want %d to %d bytes, or 0 for the kernel's default", n.BufferSize, minBuffer, maxInt)
	}
	if n.NetdevMaxBacklog < 0 || n.NetdevMaxBacklog > maxInt {
		return Fieldf("network.netdev_max_backlog", "%d is out of range; want 1 to %d packets, or 0 for the kernel's default", n.NetdevMaxBacklog, maxInt)
	}
	if !kernelWord(n.QueuingDiscipline) {
		return Fieldf("network.queuing_discipline", "%q is no queuing discipline; want one such as %q", n.QueuingDiscipline, "fq")
	}
	if !kernelWord(n.TCPCongestionAlgorithm) {
		return Fieldf("network.tcp_congestion_algorithm", "%q is no congestion algorithm; want one such as %q", n.TCPCongestionAlgorithm, "bbr")
	}
	return nil
}

func (p *KernelPCI) validate() error {
	if p == nil {
		return nil
	}
	given := make(map[string]int)
	for i, d := range p.Passthrough {
		field := fmt.Sprintf("pci.passthrough[%d]", i)
		if err := d.validate(field); err != nil {
			return err
		}
		if err := onceIn(given, d.VendorID+":"+d.ProductID+" "+d.PCIAddress, "pci.passthrough", field, i); err != nil {
			return err
		}
	}
	divided := make(map[string]int)
	for i, d := range p.SRIOV {
		field := fmt.Sprintf("pci.sriov[%d]", i)
		if err := d.validate(field); err != nil {
			return err
		}
		if err := onceIn(divided, d.PCIAddress, "pci.sriov", field+".pci_address", i); err != nil {
			return err
		}
		if slices.ContainsFunc(p.Passthrough, func(q PCIPassthrough) bool { return q.PCIAddress == d.PCIAddress }) {
			return Fieldf(field+".pci_address", "%q is in pci.passthrough as a whole; want a device to be divided or passed through, not both", d.PCIAddress)
		}
	}
	return nil
}

func (d PCIPassthrough) validate(field string) error {
	if !hexadecimal(d.VendorID, 4) {
		return Fieldf(field+".vendor_id", "%q is no vendor; want four hexadecimal digits in lower case, such as %q", d.VendorID, "10de")
	}
	if !hexadecimal(d.ProductID, 4) {
		return Fieldf(field+".product_id", "%q is no product; want four hexadecimal digits in lower case, such as %q", d.ProductID, "1eb8")
	}
	if d.PCIAddress != "" && !PCIAddress(d.PCIAddress) {
		return badAddress(field, d.PCIAddress)
	}
	return nil
}

func (d PCISRIOV) validate(field string) error {
	if !PCIAddress(d.PCIAddress) {
		return badAddress(field, d.PCIAddress)
	}
	if d.VFCount < 0 {
		return Fieldf(field+".vf_count", "%d is negative; want the number of virtual functions, or 0 for none", d.VFCount)
	}
	return nil
}

func badAddress(field, address string) error {
	return Fieldf(field+".pci_address", "%q is no PCI address; want domain, bus, device and function in lower case, such as %q", address, "0000:01:00.0")
}

// PCIAddress reports whether s is the address of a PCI device as the kernel
// writes it, such as "0000:01:00.0".
func PCIAddress(s string) bool {
	parts := strings.FieldsFunc(s, func(r rune) bool { return r == ':' || r == '.' })
	if len(parts) != 4 || strings.Join(parts[:3], ":")+"."+parts[3] != s {
		return false
	}
	function, err := strconv.ParseUint(parts[3], 8, 3)
	return hexadecimal(parts[0], 4) && hexadecimal(parts[1], 2) && hexadecimal(parts[2], 2) &&
		err == nil && strconv.FormatUint(function, 8) == parts[3]
}

func hexadecimal(s string, digits int) bool {
	return len(s) == digits && strings.Trim(s, "0123456789abcdef") == ""
}

func (z *KernelZFS) validate() error {
	if z == nil || z.ARCMaxSize == "" {
		return nil
	}
	size, err := sizeField("zfs.arc_max_size", z.ARCMaxSize)
	if err == nil && size < minARC {
		return Fieldf("zfs.arc_max_size", "%q is below what ZFS takes; want 64MiB or more", z.ARCMaxSize)
	}
	return err
}
