package systest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// A PCI is a PCI device to pretend.
type PCI struct {
	Address  string `json:"address"` // such as "0000:01:00.0"
	Vendor   string `json:"vendor"`  // four hexadecimal digits
	Device   string `json:"device"`  // four hexadecimal digits
	Class    string `json:"class"`   // six hexadecimal digits
	Driver   string `json:"driver"`  // "" for none
	TotalVFs int    `json:"total_vfs"`
	NoIOMMU  bool   `json:"no_iommu"`
}

const (
	pciBus  = "/sys/bus/pci/"
	pciTree = "/sys/devices/pci0000:00/"
)

// devices are all PCI devices of the machine: drives are on one, and each
// network card is one.
func (m Machine) devices() []PCI {
	all := []PCI{{Address: "0000:00:01.0", Vendor: "1af4", Device: "1042", Class: "010000", Driver: "virtio-pci"}}
	for i := range m.NICs {
		all = append(all, PCI{Address: nicAddress(i), Vendor: "1af4", Device: "1041", Class: "020000", Driver: "virtio-pci"})
	}
	return append(all, m.PCI...)
}

func nicAddress(i int) string { return fmt.Sprintf("0000:00:%02x.0", 3+i) }

func (m Machine) drivers() map[string]string {
	drivers := make(map[string]string)
	for _, d := range m.devices() {
		drivers[d.Address] = d.Driver
	}
	return drivers
}

func (t *tree) pci(m Machine) {
	t.write(pciBus+"drivers_probe", "")
	t.write(pciBus+"drivers/vfio-pci/unbind", "")
	for _, d := range m.devices() {
		t.pciDevice(d)
	}
	for i, n := range m.NICs {
		where := "devices/pci0000:00/" + nicAddress(i) + "/net/" + n.Name
		t.write("/sys/"+where+"/address", n.Hwaddr+"\n")
		t.symlink("../../"+where, "/sys/class/net/"+n.Name)
	}
}

func (t *tree) pciDevice(d PCI) {
	dir := pciTree + d.Address
	t.write(dir+"/vendor", "0x"+d.Vendor+"\n")
	t.write(dir+"/device", "0x"+d.Device+"\n")
	t.write(dir+"/class", "0x"+d.Class+"\n")
	t.write(dir+"/driver_override", "(null)\n")
	if d.TotalVFs > 0 {
		t.write(dir+"/sriov_totalvfs", fmt.Sprintln(d.TotalVFs))
		t.write(dir+"/sriov_numvfs", "0\n")
	}
	if !d.NoIOMMU {
		t.symlink("../../../kernel/iommu_groups/1", dir+"/iommu_group")
	}
	t.symlink("../../../devices/pci0000:00/"+d.Address, pciBus+"devices/"+d.Address)
	if d.Driver != "" {
		t.write(pciBus+"drivers/"+d.Driver+"/unbind", "")
		t.symlink("../../../bus/pci/drivers/"+d.Driver, dir+"/driver")
	}
}

// putPCI answers a write below /sys/bus/pci.
func (k *kernel) putPCI(name, value string) error {
	dir := filepath.Join(k.tree, pciTree, value)
	switch filepath.Base(name) {
	case "unbind":
		return os.Remove(dir + "/driver")
	case "drivers_probe":
		return k.probe(value)
	case "driver_override":
		if value == "" {
			value = "(null)"
		}
		return k.set(name, value)
	case "sriov_numvfs":
		return k.divide(filepath.Base(filepath.Dir(name)), value)
	}
	return syscall.EACCES
}

// probe gives a device without a driver the one it should have.
func (k *kernel) probe(address string) error {
	dir := filepath.Join(k.tree, pciTree, address)
	if _, err := os.Lstat(dir + "/driver"); err == nil {
		return nil
	}
	driver := k.native[address]
	if override := k.get(pciTree + address + "/driver_override"); override != "(null)" {
		driver = override
	}
	if driver == "" || driver == "vfio-pci" && k.get("/sys/module/vfio_pci/initstate") == "" {
		return nil
	}
	return os.Symlink("../../../bus/pci/drivers/"+driver, dir+"/driver")
}

// divide makes virtual functions, and refuses what the kernel refuses.
func (k *kernel) divide(address, value string) error {
	dir := pciTree + address
	count, err := strconv.Atoi(value)
	total, _ := strconv.Atoi(k.get(dir + "/sriov_totalvfs"))
	now := k.get(dir + "/sriov_numvfs")
	switch {
	case err != nil:
		return syscall.EINVAL
	case count > total:
		return syscall.ERANGE
	case count > 0 && now != "0":
		return syscall.EBUSY
	}
	t := &tree{root: k.tree}
	for i := range total {
		vf := strings.TrimSuffix(address, "0.0") + fmt.Sprintf("2.%d", i)
		t.remove(pciTree+vf, pciBus+"devices/"+vf)
		if i < count {
			t.pciDevice(PCI{Address: vf, Vendor: strings.TrimPrefix(k.get(dir+"/vendor"), "0x"), Device: "154c", Class: "020000"})
		}
	}
	t.write(dir+"/sriov_numvfs", value+"\n")
	return t.err
}
