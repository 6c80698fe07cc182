package resources

import (
	"path"
	"strings"

	"github.com/incusos/incusos/api"
)

func (m machine) pci() api.ResourcesPCI {
	out := api.ResourcesPCI{Devices: []api.ResourcesPCIDevice{}}
	const dir = "/sys/bus/pci/devices"
	for _, address := range m.list(dir) {
		device := dir + "/" + address
		d := api.ResourcesPCIDevice{
			PCIAddress: address, NUMANode: m.number(device + "/numa_node"),
			VendorID: m.hex(device + "/vendor"), ProductID: m.hex(device + "/device"),
			IOMMUGroup: number(m.link(device + "/iommu_group")),
		}
		d.Driver, d.DriverVersion = m.driver(device)
		out.Devices = append(out.Devices, d)
	}
	return out
}

// hex returns a number such as "0x8086" as it is usually written: "8086".
func (m machine) hex(name string) string { return strings.TrimPrefix(m.text(name), "0x") }

// gpu returns the graphics cards: whatever the system draws with, and PCI
// devices of the class that it leaves to instances.
func (m machine) gpu() api.ResourcesGPU {
	out := api.ResourcesGPU{Cards: []api.ResourcesGPUCard{}}
	drawn := make(map[string]bool)
	for _, name := range m.list("/sys/class/drm") {
		if id, ok := strings.CutPrefix(name, "card"); !ok || id == "" || strings.Trim(id, "0123456789") != "" {
			continue // an output of a card, such as "card0-DP-1"
		}
		card := m.drmCard(name)
		if card.PCIAddress != "" && card.USBAddress == "" {
			drawn[card.PCIAddress] = true
		}
		out.Cards = append(out.Cards, card)
	}
	const dir = "/sys/bus/pci/devices"
	for _, address := range m.list(dir) {
		if strings.HasPrefix(m.hex(dir+"/"+address+"/class"), "03") && !drawn[address] { // display controllers
			out.Cards = append(out.Cards, m.card(m.real(dir+"/"+address)))
		}
	}
	return out
}

func (m machine) card(device string) api.ResourcesGPUCard {
	p := m.where(device)
	c := api.ResourcesGPUCard{PCIAddress: p.addr, USBAddress: m.usbAddress(p)}
	switch {
	case p.usb != "":
		c.Vendor, c.VendorID = m.text(p.usb+"/manufacturer"), m.text(p.usb+"/idVendor")
		c.Product, c.ProductID = m.text(p.usb+"/product"), m.text(p.usb+"/idProduct")
	case p.pci != "":
		c.VendorID, c.ProductID = m.hex(p.pci+"/vendor"), m.hex(p.pci+"/device")
	}
	c.NUMANode = m.number(p.pci + "/numa_node")
	c.Driver, c.DriverVersion = m.driver(device)
	return c
}

func (m machine) drmCard(name string) api.ResourcesGPUCard {
	dir := "/sys/class/drm/" + name
	device := path.Dir(path.Dir(m.real(dir))) // .../0000:00:02.0/drm/card0
	c := m.card(device)
	c.DRM = &api.ResourcesGPUCardDRM{ID: numbered(name), CardName: name, CardDevice: m.text(dir + "/dev")}
	for _, other := range m.list(device + "/drm") {
		if strings.HasPrefix(other, "renderD") {
			c.DRM.RenderName, c.DRM.RenderDevice = other, m.text(device+"/drm/"+other+"/dev")
		}
	}
	return c
}
