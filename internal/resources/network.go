package resources

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"github.com/incusos/incusos/api"
)

// infiniband is a type of interfaces (linux/if_arp.h, ARPHRD_INFINIBAND).
const infiniband = 32

// network returns the network cards with their interfaces. A virtual card that
// SR-IOV made is shown with the card it is part of.
func (m machine) network() api.ResourcesNetwork {
	cards := make(map[string]*api.ResourcesNetworkCard) // by directory of the device
	for _, name := range m.list("/sys/class/net") {
		where := m.real("/sys/class/net/" + name)
		if where == "/sys/class/net/"+name || strings.Contains(where, "/devices/virtual/") {
			continue // no symlink, as bonding_masters; or a bridge, and so on
		}
		device := path.Dir(path.Dir(where)) // .../0000:00:03.0/virtio0/net/eth0
		if cards[device] == nil {
			card := m.networkCard(device)
			cards[device] = &card
		}
		c := cards[device]
		c.Ports = append(c.Ports, m.port(where, name))
	}
	return api.ResourcesNetwork{Cards: m.divide(cards)}
}

func (m machine) networkCard(device string) api.ResourcesNetworkCard {
	p := m.where(device)
	c := api.ResourcesNetworkCard{PCIAddress: p.addr, USBAddress: m.usbAddress(p), NUMANode: m.number(p.pci + "/numa_node"), Ports: []api.ResourcesNetworkCardPort{}}
	switch {
	case p.usb != "":
		c.Vendor, c.VendorID = m.text(p.usb+"/manufacturer"), m.text(p.usb+"/idVendor")
		c.Product, c.ProductID = m.text(p.usb+"/product"), m.text(p.usb+"/idProduct")
	case p.pci != "":
		c.VendorID, c.ProductID = m.hex(p.pci+"/vendor"), m.hex(p.pci+"/device")
	}
	c.Driver, c.DriverVersion = m.driver(device)
	if most := m.number(p.pci + "/sriov_totalvfs"); p.pci != "" && most > 0 {
		c.SRIOV = &api.ResourcesNetworkCardSRIOV{CurrentVFs: m.number(p.pci + "/sriov_numvfs"), MaximumVFs: most, VFs: []api.ResourcesNetworkCardVF{}}
	}
	return c
}

func (m machine) port(dir, name string) api.ResourcesNetworkCardPort {
	p := api.ResourcesNetworkCardPort{
		ID: name, Address: m.text(dir + "/address"), Port: m.number(dir + "/dev_port"), Protocol: "ethernet",
		LinkDetected: m.text(dir+"/carrier") == "1",
	}
	if m.number(dir+"/type") == infiniband {
		p.Protocol = "infiniband"
	}
	if p.LinkDetected {
		p.LinkSpeed = m.number(dir + "/speed") // -1 if it is not known
		if duplex := m.text(dir + "/duplex"); duplex != "unknown" {
			p.LinkDuplex = duplex
		}
	}
	return p
}

// divide puts virtual cards below those they are part of, and sorts the others
// by their addresses.
func (m machine) divide(cards map[string]*api.ResourcesNetworkCard) []api.ResourcesNetworkCard {
	byAddress := make(map[string]*api.ResourcesNetworkCard)
	for _, c := range cards {
		byAddress[c.PCIAddress] = c
	}
	var whole []*api.ResourcesNetworkCard
	for device, c := range cards {
		parent := byAddress[m.link(m.where(device).pci+"/physfn")]
		if c.PCIAddress != "" && parent != nil && parent != c && parent.SRIOV != nil {
			parent.SRIOV.VFs = append(parent.SRIOV.VFs, api.ResourcesNetworkCardVF{
				Driver: c.Driver, DriverVersion: c.DriverVersion, Ports: c.Ports, NUMANode: c.NUMANode,
				PCIAddress: c.PCIAddress, VendorID: c.VendorID, ProductID: c.ProductID,
			})
		} else {
			whole = append(whole, c)
		}
	}
	out := make([]api.ResourcesNetworkCard, 0, len(whole))
	for _, c := range whole {
		if c.SRIOV != nil {
			slices.SortFunc(c.SRIOV.VFs, func(a, b api.ResourcesNetworkCardVF) int { return strings.Compare(a.PCIAddress, b.PCIAddress) })
		}
		out = append(out, *c)
	}
	slices.SortFunc(out, byPlace)
	return out
}

func byPlace(a, b api.ResourcesNetworkCard) int {
	return cmp.Or(strings.Compare(a.PCIAddress, b.PCIAddress), strings.Compare(a.USBAddress, b.USBAddress), strings.Compare(a.Ports[0].ID, b.Ports[0].ID))
}
