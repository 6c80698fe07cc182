package api

// Resources is the document of /os/1.0/system/resources: the hardware, in the
// shape of Incus' own /1.0/resources. Lists are never null. What Incus has and
// is not here (GPU mediated devices, vDPA, InfiniBand) is left out there too on
// machines without it.
type Resources struct {
	CPU     ResourcesCPU     `json:"cpu"`
	Memory  ResourcesMemory  `json:"memory"`
	GPU     ResourcesGPU     `json:"gpu"`
	Network ResourcesNetwork `json:"network"`
	Storage ResourcesStorage `json:"storage"`
	USB     ResourcesUSB     `json:"usb"`
	PCI     ResourcesPCI     `json:"pci"`
	System  ResourcesSystem  `json:"system"`
	Load    ResourcesLoad    `json:"load"`
	Serial  ResourcesSerial  `json:"serial"`
}

// ResourcesCPU is the processors.
type ResourcesCPU struct {
	Architecture string               `json:"architecture"` // as the kernel calls it, such as "x86_64"
	Sockets      []ResourcesCPUSocket `json:"sockets"`
	Total        uint64               `json:"total"` // threads of all cores of all sockets
}

// A ResourcesCPUSocket is one processor.
type ResourcesCPUSocket struct {
	Name             string                    `json:"name,omitempty"`
	Vendor           string                    `json:"vendor,omitempty"` // such as "GenuineIntel"
	Socket           uint64                    `json:"socket"`           // number of the socket
	Cache            []ResourcesCPUCache       `json:"cache,omitempty"`  // those of its first thread
	Cores            []ResourcesCPUCore        `json:"cores"`
	Frequency        uint64                    `json:"frequency,omitempty"`         // now, the mean of its cores, MHz
	FrequencyMinimum uint64                    `json:"frequency_minimum,omitempty"` // MHz
	FrequencyTurbo   uint64                    `json:"frequency_turbo,omitempty"`   // the most, MHz
	AddressSizes     *ResourcesCPUAddressSizes `json:"address_sizes,omitempty"`
}

// ResourcesCPUAddressSizes says how long addresses are.
type ResourcesCPUAddressSizes struct {
	PhysicalBits uint64 `json:"physical_bits"`
	VirtualBits  uint64 `json:"virtual_bits"`
}

// A ResourcesCPUCache is one cache.
type ResourcesCPUCache struct {
	Level uint64 `json:"level"`
	Type  string `json:"type"` // "Data", "Instruction" or "Unified"
	Size  uint64 `json:"size"` // bytes
}

// A ResourcesCPUCore is one core.
type ResourcesCPUCore struct {
	Core      uint64               `json:"core"` // number within the socket
	Die       uint64               `json:"die"`  // number of the die it is on
	Threads   []ResourcesCPUThread `json:"threads"`
	Frequency uint64               `json:"frequency,omitempty"` // now, MHz
	Flags     []string             `json:"flags"`               // what it can do, as the kernel calls it
}

// A ResourcesCPUThread is what the kernel calls a CPU.
type ResourcesCPUThread struct {
	ID       int64  `json:"id"`        // number of the CPU, for pinning
	NUMANode uint64 `json:"numa_node"` // memory that is near
	Thread   uint64 `json:"thread"`    // number within the core
	Online   bool   `json:"online"`
	Isolated bool   `json:"isolated"` // the scheduler leaves it alone
}

// ResourcesMemory is the memory; sizes are in bytes.
type ResourcesMemory struct {
	Nodes          []ResourcesMemoryNode `json:"nodes"` // of NUMA; at least one
	HugepagesTotal uint64                `json:"hugepages_total"`
	HugepagesUsed  uint64                `json:"hugepages_used"`
	HugepagesSize  uint64                `json:"hugepages_size"` // of one
	Used           uint64                `json:"used"`           // without what can be given back
	Total          uint64                `json:"total"`
}

// A ResourcesMemoryNode is the memory near to some processors; sizes are in bytes.
type ResourcesMemoryNode struct {
	NUMANode       uint64 `json:"numa_node"`
	HugepagesUsed  uint64 `json:"hugepages_used"`
	HugepagesTotal uint64 `json:"hugepages_total"`
	Used           uint64 `json:"used"`
	Total          uint64 `json:"total"`
}

// ResourcesGPU is the graphics cards.
type ResourcesGPU struct {
	Cards []ResourcesGPUCard `json:"cards"`
	Total uint64             `json:"total"` // cards
}

// A ResourcesGPUCard is a graphics card.
type ResourcesGPUCard struct {
	Driver        string               `json:"driver,omitempty"`
	DriverVersion string               `json:"driver_version,omitempty"` // that of the kernel if it has none of its own
	DRM           *ResourcesGPUCardDRM `json:"drm,omitempty"`            // absent while the system does not use it
	NUMANode      uint64               `json:"numa_node"`
	PCIAddress    string               `json:"pci_address,omitempty"`
	Vendor        string               `json:"vendor,omitempty"`
	VendorID      string               `json:"vendor_id,omitempty"` // four hexadecimal digits
	Product       string               `json:"product,omitempty"`
	ProductID     string               `json:"product_id,omitempty"` // four hexadecimal digits
	USBAddress    string               `json:"usb_address,omitempty"`
}

// ResourcesGPUCardDRM is how the system uses a graphics card.
type ResourcesGPUCardDRM struct {
	ID           uint64 `json:"id"`
	CardName     string `json:"card_name"`               // such as "card0"
	CardDevice   string `json:"card_device"`             // its numbers, such as "226:0"
	RenderName   string `json:"render_name,omitempty"`   // such as "renderD128"
	RenderDevice string `json:"render_device,omitempty"` // its numbers, such as "226:128"
}

// ResourcesNetwork is the network cards.
type ResourcesNetwork struct {
	Cards []ResourcesNetworkCard `json:"cards"`
	Total uint64                 `json:"total"` // cards
}

// A ResourcesNetworkCard is a network card.
type ResourcesNetworkCard struct {
	Driver        string                     `json:"driver,omitempty"`
	DriverVersion string                     `json:"driver_version,omitempty"` // that of the kernel if it has none of its own
	Ports         []ResourcesNetworkCardPort `json:"ports"`
	SRIOV         *ResourcesNetworkCardSRIOV `json:"sriov,omitempty"` // absent if it cannot be divided
	NUMANode      uint64                     `json:"numa_node"`
	PCIAddress    string                     `json:"pci_address,omitempty"`
	Vendor        string                     `json:"vendor,omitempty"`
	VendorID      string                     `json:"vendor_id,omitempty"` // four hexadecimal digits
	Product       string                     `json:"product,omitempty"`
	ProductID     string                     `json:"product_id,omitempty"` // four hexadecimal digits
	USBAddress    string                     `json:"usb_address,omitempty"`
}

// A ResourcesNetworkCardVF is a virtual card, a part of another. It is no
// ResourcesNetworkCard, which documents could not describe as a part of itself.
type ResourcesNetworkCardVF struct {
	Driver        string                     `json:"driver,omitempty"`
	DriverVersion string                     `json:"driver_version,omitempty"` // that of the kernel if it has none of its own
	Ports         []ResourcesNetworkCardPort `json:"ports"`
	NUMANode      uint64                     `json:"numa_node"`
	PCIAddress    string                     `json:"pci_address,omitempty"`
	VendorID      string                     `json:"vendor_id,omitempty"`  // four hexadecimal digits
	ProductID     string                     `json:"product_id,omitempty"` // four hexadecimal digits
}

// A ResourcesNetworkCardPort is one interface of a network card.
type ResourcesNetworkCardPort struct {
	ID              string `json:"id"`                // name of the interface
	Address         string `json:"address,omitempty"` // MAC address
	Port            uint64 `json:"port"`              // number on the card
	Protocol        string `json:"protocol"`          // "ethernet" or "infiniband"
	AutoNegotiation bool   `json:"auto_negotiation"`  // always false: only a program could tell
	LinkDetected    bool   `json:"link_detected"`
	LinkSpeed       uint64 `json:"link_speed,omitempty"`  // Mbit/s
	LinkDuplex      string `json:"link_duplex,omitempty"` // "full" or "half"
}

// ResourcesNetworkCardSRIOV is how far a network card is divided.
type ResourcesNetworkCardSRIOV struct {
	CurrentVFs uint64                   `json:"current_vfs"` // virtual cards there are
	MaximumVFs uint64                   `json:"maximum_vfs"` // as many as there could be
	VFs        []ResourcesNetworkCardVF `json:"vfs"`
}

// ResourcesStorage is the drives.
type ResourcesStorage struct {
	Disks []ResourcesStorageDisk `json:"disks"`
	Total uint64                 `json:"total"` // drives
}

// A ResourcesStorageDisk is a drive.
type ResourcesStorageDisk struct {
	ID              string                          `json:"id"`     // name of the device, such as "nvme0n1"
	Device          string                          `json:"device"` // its numbers, such as "259:0"
	Model           string                          `json:"model,omitempty"`
	Type            string                          `json:"type,omitempty"` // "nvme", "scsi", "usb", "virtio" or "mmc"
	ReadOnly        bool                            `json:"read_only"`
	Size            uint64                          `json:"size"`      // bytes
	Removable       bool                            `json:"removable"` // its medium can be taken out
	WWN             string                          `json:"wwn,omitempty"`
	NUMANode        uint64                          `json:"numa_node"`
	DevicePath      string                          `json:"device_path,omitempty"` // name in /dev/disk/by-path
	BlockSize       uint64                          `json:"block_size"`            // bytes
	FirmwareVersion string                          `json:"firmware_version,omitempty"`
	RPM             uint64                          `json:"rpm"` // 0: does not turn; 1: turns, who knows how fast
	Serial          string                          `json:"serial,omitempty"`
	DeviceID        string                          `json:"device_id"` // name in /dev/disk/by-id
	Partitions      []ResourcesStorageDiskPartition `json:"partitions"`
	PCIAddress      string                          `json:"pci_address,omitempty"`
	USBAddress      string                          `json:"usb_address,omitempty"`
}

// A ResourcesStorageDiskPartition is a partition of a drive.
type ResourcesStorageDiskPartition struct {
	ID        string `json:"id"`     // name of the device, such as "nvme0n1p1"
	Device    string `json:"device"` // its numbers, such as "259:1"
	ReadOnly  bool   `json:"read_only"`
	Size      uint64 `json:"size"` // bytes
	Partition uint64 `json:"partition"`
}

// ResourcesUSB is what is on the USB, hubs left out.
type ResourcesUSB struct {
	Devices []ResourcesUSBDevice `json:"devices"`
	Total   uint64               `json:"total"` // devices
}

// A ResourcesUSBDevice is a USB device.
type ResourcesUSBDevice struct {
	BusAddress    uint64                        `json:"bus_address"`
	DeviceAddress uint64                        `json:"device_address"`
	Serial        string                        `json:"serial"`
	Interfaces    []ResourcesUSBDeviceInterface `json:"interfaces"`
	Vendor        string                        `json:"vendor"`
	VendorID      string                        `json:"vendor_id"` // four hexadecimal digits
	Product       string                        `json:"product"`
	ProductID     string                        `json:"product_id"` // four hexadecimal digits
	Speed         float64                       `json:"speed"`      // Mbit/s
}

// A ResourcesUSBDeviceInterface is one function of a USB device.
type ResourcesUSBDeviceInterface struct {
	Class         string `json:"class"` // in words, such as "Mass Storage"
	ClassID       uint64 `json:"class_id"`
	Driver        string `json:"driver"`
	DriverVersion string `json:"driver_version"` // that of the kernel if it has none of its own
	Number        uint64 `json:"number"`
	SubClass      string `json:"subclass"` // always empty: the number says it
	SubClassID    uint64 `json:"subclass_id"`
}

// ResourcesPCI is what is on the PCI bus.
type ResourcesPCI struct {
	Devices []ResourcesPCIDevice `json:"devices"`
	Total   uint64               `json:"total"` // devices
}

// A ResourcesPCIDevice is a PCI device. Names of vendors and products are
// empty: the system carries no list of them.
type ResourcesPCIDevice struct {
	Driver        string          `json:"driver"`
	DriverVersion string          `json:"driver_version"` // that of the kernel if it has none of its own
	NUMANode      uint64          `json:"numa_node"`
	PCIAddress    string          `json:"pci_address"` // such as "0000:07:03.0"
	Vendor        string          `json:"vendor"`
	VendorID      string          `json:"vendor_id"` // four hexadecimal digits
	Product       string          `json:"product"`
	ProductID     string          `json:"product_id"` // four hexadecimal digits
	IOMMUGroup    uint64          `json:"iommu_group"`
	VPD           ResourcesPCIVPD `json:"vpd"`
}

// ResourcesPCIVPD is what a PCI device says of itself; always empty here.
type ResourcesPCIVPD struct {
	ProductName string            `json:"product_name,omitempty"`
	Entries     map[string]string `json:"entries,omitempty"`
}

// ResourcesSystem is the machine as its firmware describes it.
type ResourcesSystem struct {
	UUID        string                      `json:"uuid"`
	Vendor      string                      `json:"vendor"`
	Product     string                      `json:"product"`
	Family      string                      `json:"family"`
	Version     string                      `json:"version"`
	SKU         string                      `json:"sku"`
	Serial      string                      `json:"serial"`
	Type        string                      `json:"type"` // "physical" or "virtual-machine"
	Firmware    *ResourcesSystemFirmware    `json:"firmware"`
	Chassis     *ResourcesSystemChassis     `json:"chassis"`
	Motherboard *ResourcesSystemMotherboard `json:"motherboard"`
}

// ResourcesSystemFirmware is the firmware.
type ResourcesSystemFirmware struct {
	Vendor  string `json:"vendor"`
	Date    string `json:"date"` // as the firmware writes it
	Version string `json:"version"`
}

// ResourcesSystemChassis is the case.
type ResourcesSystemChassis struct {
	Vendor  string `json:"vendor"`
	Type    string `json:"type"` // in words, such as "Rack Mount Chassis"
	Serial  string `json:"serial"`
	Version string `json:"version"`
}

// ResourcesSystemMotherboard is the main board.
type ResourcesSystemMotherboard struct {
	Vendor  string `json:"vendor"`
	Product string `json:"product"`
	Serial  string `json:"serial"`
	Version string `json:"version"`
}

// ResourcesLoad is how many processes want to run, as means over time. The keys
// are Incus'.
type ResourcesLoad struct {
	Average1Min  float64 `json:"Average1Min"`
	Average5Min  float64 `json:"Average5Min"`
	Average10Min float64 `json:"Average10Min"` // 15 minutes in truth, as in Incus
	Processes    int     `json:"Processes"`    // there are
}

// ResourcesSerial is serial ports on the USB.
type ResourcesSerial struct {
	Devices []ResourcesSerialDevice `json:"devices"`
	Total   uint64                  `json:"total"` // devices
}

// A ResourcesSerialDevice is a serial port on the USB.
type ResourcesSerialDevice struct {
	ID         string `json:"id"`          // name of the device, such as "ttyUSB0"
	Device     string `json:"device"`      // its numbers, such as "188:0"
	DeviceID   string `json:"device_id"`   // path in /dev/serial/by-id
	DevicePath string `json:"device_path"` // path in /dev/serial/by-path
	Driver     string `json:"driver"`
	Vendor     string `json:"vendor"`
	VendorID   string `json:"vendor_id"` // four hexadecimal digits
	Product    string `json:"product"`
	ProductID  string `json:"product_id"` // four hexadecimal digits
}
