package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

const (
	pciDevices = "/sys/bus/pci/devices/"
	pciProbe   = "/sys/bus/pci/drivers_probe"
	vfio       = "vfio-pci"
	bootLabel  = "root" // of a partition on the disk that the system runs from
)

func (k *Kernel) attribute(address, name string) string {
	b, err := k.host.Files.ReadFile(pciDevices + address + "/" + name)
	if err != nil {
		return "" // not every device has every attribute
	}
	return fields(b)
}

// sriov looks after the devices that are divided.
func (k *Kernel) sriov(cfg api.SystemKernelConfig) ([]step, error) {
	was, err := originals(k.host.Files)
	if err != nil {
		return nil, err
	}
	wanted := make(map[string]string) // by file
	if cfg.PCI != nil {
		for i, d := range cfg.PCI.SRIOV {
			if err := k.canDivide(d, fmt.Sprintf("pci.sriov[%d]", i)); err != nil {
				return nil, err
			}
			wanted[virtualFunctions(d.PCIAddress)] = strconv.Itoa(d.VFCount)
		}
	}
	for file := range was {
		if _, ok := wanted[file]; !ok && path.Base(file) == path.Base(virtualFunctions("")) {
			wanted[file] = ""
		}
	}
	var steps []step
	for _, file := range sortedKeys(wanted) {
		s := setting{
			name: "the virtual functions of " + path.Base(path.Dir(file)), file: file, value: wanted[file],
			risk: "those it has go away first", put: func(_ context.Context, n string) error { return k.divide(file, n) },
		}
		change, err := s.change(k.host.Files, was)
		if err != nil {
			return nil, err
		}
		steps = append(steps, change...)
	}
	return steps, nil
}

func virtualFunctions(address string) string { return pciDevices + address + "/sriov_numvfs" }

func (k *Kernel) canDivide(d api.PCISRIOV, field string) error {
	if !k.host.Files.Exists(pciDevices + d.PCIAddress) {
		return noDevice(field, d.PCIAddress)
	}
	total, err := strconv.Atoi(k.attribute(d.PCIAddress, "sriov_totalvfs"))
	if err != nil || total == 0 {
		return api.Fieldf(field+".pci_address", "%q cannot be divided: it has no SR-IOV, or the firmware has turned that off", d.PCIAddress)
	}
	if d.VFCount > total {
		return api.Fieldf(field+".vf_count", "%d is more than %s can do; want %d at most", d.VFCount, d.PCIAddress, total)
	}
	return nil
}

func noDevice(field, address string) error {
	return api.Fieldf(field+".pci_address", "%q: there is no such PCI device; GET /1.0/system/resources lists those there are", address)
}

// divide sets the number of virtual functions. The kernel refuses to go from one
// number to another except by way of none.
func (k *Kernel) divide(file, count string) error {
	if b, err := k.host.Files.ReadFile(file); err != nil || fields(b) != "0" {
		if err := errors.Join(err, k.host.Files.PutFile(file, []byte("0\n"))); err != nil || count == "0" {
			return err
		}
	}
	return k.host.Files.PutFile(file, []byte(count+"\n"))
}

// passthrough looks after the devices that are kept for virtual machines.
func (k *Kernel) passthrough(cfg api.SystemKernelConfig) ([]step, error) {
	was, err := originals(k.host.Files)
	if err != nil {
		return nil, err
	}
	wanted, err := k.wantedDevices(cfg.PCI)
	if err != nil {
		return nil, err
	}
	var steps []step
	for _, address := range sortedKeys(wanted) {
		if k.driver(address) != vfio || k.attribute(address, "driver_override") != vfio {
			s := newStep("keep", address+" for virtual machines", func(ctx context.Context) error { return k.keep(ctx, address) })
			if d := k.driver(address); d != "" {
				s = s.withRisk("what uses it by way of " + d + " loses it")
			}
			steps = append(steps, s)
		}
	}
	for _, file := range sortedKeys(was) {
		address := path.Base(path.Dir(file))
		if _, ok := wanted[address]; ok || path.Base(file) != "driver_override" || !k.host.Files.Exists(file) {
			continue
		}
		steps = append(steps, newStep("return", address+" to the system", func(context.Context) error { return k.giveBack(address) }).
			withRisk("a virtual machine that uses it loses it"))
	}
	return steps, nil
}

// driver returns what drives a device, "" if nothing does.
func (k *Kernel) driver(address string) string {
	target, err := k.host.Files.Readlink(pciDevices + address + "/driver")
	if err != nil {
		return ""
	}
	return path.Base(target)
}

// keep gives a device to the driver that hands it on to virtual machines. It is
// noted first, so that devices which Incus itself took are left alone later.
func (k *Kernel) keep(ctx context.Context, address string) error {
	dir := pciDevices + address
	if err := remember(k.host.Files, dir+"/driver_override", ""); err != nil {
		return err
	}
	if err := k.run("modprobe", vfio)(ctx); err != nil {
		return err
	}
	if err := k.rebind(address, vfio); err != nil {
		return err
	}
	if d := k.driver(address); d != vfio {
		return fmt.Errorf("the kernel gave it to %q instead of %s; see the kernel's log", d, vfio)
	}
	return nil
}

// giveBack lets the system's own driver have a device again.
func (k *Kernel) giveBack(address string) error {
	if err := k.rebind(address, ""); err != nil {
		return err
	}
	return forget(k.host.Files, pciDevices+address+"/driver_override")
}

// rebind has a device driven by driver, or by what the kernel thinks right.
func (k *Kernel) rebind(address, driver string) error {
	dir := pciDevices + address
	if err := k.host.Files.PutFile(dir+"/driver_override", []byte(driver+"\n")); err != nil {
		return err
	}
	if now := k.driver(address); now != "" && now != driver {
		if err := k.host.Files.PutFile(dir+"/driver/unbind", []byte(address)); err != nil {
			return err
		}
	}
	return k.host.Files.PutFile(pciProbe, []byte(address))
}

// wantedDevices returns the addresses of the devices to keep for virtual
// machines, with the field that asks for each.
func (k *Kernel) wantedDevices(cfg *api.KernelPCI) (map[string]string, error) {
	wanted := make(map[string]string)
	if cfg == nil || len(cfg.Passthrough) == 0 {
		return wanted, nil
	}
	for i, d := range cfg.Passthrough {
		field := fmt.Sprintf("pci.passthrough[%d]", i)
		found, err := k.find(d)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 && !divides(cfg) { // a virtual function may be there later
			if d.PCIAddress != "" && k.host.Files.Exists(pciDevices+d.PCIAddress) {
				return nil, api.Fieldf(field, "%s is %s; want that, or another address", d.PCIAddress, k.identity(d.PCIAddress))
			}
			if d.PCIAddress != "" {
				return nil, noDevice(field, d.PCIAddress)
			}
			return nil, api.Fieldf(field, "there is no PCI device %s:%s; GET /1.0/system/resources lists those there are", d.VendorID, d.ProductID)
		}
		for _, address := range found {
			wanted[address] = field
		}
	}
	return wanted, k.canKeep(wanted)
}

func divides(cfg *api.KernelPCI) bool {
	return slices.ContainsFunc(cfg.SRIOV, func(d api.PCISRIOV) bool { return d.VFCount > 0 })
}

// identity returns vendor and product, such as "10de:1eb8".
func (k *Kernel) identity(address string) string {
	return strings.TrimPrefix(k.attribute(address, "vendor"), "0x") + ":" + strings.TrimPrefix(k.attribute(address, "device"), "0x")
}

// find returns the addresses of the devices that d is about.
func (k *Kernel) find(d api.PCIPassthrough) ([]string, error) {
	entries, err := k.host.Files.ReadDir(pciDevices)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing PCI devices: %w", err)
	}
	var found []string
	for _, e := range entries {
		if a := e.Name(); (d.PCIAddress == "" || d.PCIAddress == a) && k.identity(a) == d.VendorID+":"+d.ProductID {
			found = append(found, a)
		}
	}
	return found, nil
}

// canKeep refuses what cannot be taken from the system, or what the machine
// could not be reached or started without. It says so before anything changes,
// since afterwards nobody could.
func (k *Kernel) canKeep(wanted map[string]string) error {
	disk, err := k.systemDisk()
	if err != nil {
		return err
	}
	for _, address := range sortedKeys(wanted) {
		field := wanted[address]
		switch {
		case k.driver(address) == vfio:
			continue
		case slices.Contains(disk, address):
			return api.Fieldf(field, "%s holds the disk that the system runs from; it cannot be passed through", address)
		case strings.HasPrefix(k.attribute(address, "class"), "0x0604"):
			return api.Fieldf(field, "%s is a bridge to other devices; want the address of a device behind it", address)
		case !k.host.Files.Exists(pciDevices + address + "/iommu_group"):
			return api.Fieldf(field, "%s cannot be passed through, since this machine has no IOMMU in use; turn on VT-d or AMD-Vi in its firmware", address)
		}
	}
	return k.keepsNetwork(wanted)
}

// systemDisk returns what is between the processor and the disk that the system
// runs from: parts of a path in sysfs.
func (k *Kernel) systemDisk() ([]string, error) {
	disks, err := sys.Disks(k.host.Files)
	if err != nil {
		return nil, err
	}
	boot, err := sys.BootDisk(k.host.Files)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var parts []string
	for _, d := range disks {
		if _, ours := d.Partition(bootLabel); ours || d.Name == boot.Name {
			where, _ := k.host.Files.Readlink("/sys/block/" + d.Name)
			parts = append(parts, strings.Split(where, "/")...)
		}
	}
	return parts, nil
}

// keepsNetwork refuses to take the last network card away.
func (k *Kernel) keepsNetwork(wanted map[string]string) error {
	const dir = "/sys/class/net/"
	entries, err := k.host.Files.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("listing network cards: %w", err)
	}
	taken, name := "", ""
	for _, e := range entries {
		where, _ := k.host.Files.Readlink(dir + e.Name())
		if !strings.Contains(where, "/pci") {
			continue // a device of the kernel's own making
		}
		i := slices.IndexFunc(strings.Split(where, "/"), func(part string) bool { return wanted[part] != "" })
		if i < 0 {
			return nil // one is left
		}
		taken, name = strings.Split(where, "/")[i], e.Name()
	}
	if taken == "" {
		return nil
	}
	return api.Fieldf(wanted[taken], "%s is the only network card that would be left (%s); without it the machine cannot be reached", taken, name)
}
