package api

// SystemKernel is the document of /os/1.0/system/kernel.
type SystemKernel struct {
	Config SystemKernelConfig `json:"config"`
	State  SystemKernelState  `json:"state"`
}

// SystemKernelConfig is how the kernel should be set. What is left out is the
// kernel's own default.
type SystemKernelConfig struct {
	Console          []KernelConsole `json:"console,omitempty"`           // serial ports that show what the screen shows
	BlacklistModules []string        `json:"blacklist_modules,omitempty"` // never loaded by themselves, and unloaded if they are not in use
	CPU              *KernelCPU      `json:"cpu,omitempty"`
	Memory           *KernelMemory   `json:"memory,omitempty"`
	Network          *KernelNetwork  `json:"network,omitempty"`
	PCI              *KernelPCI      `json:"pci,omitempty"`
	ZFS              *KernelZFS      `json:"zfs,omitempty"`
}

// A KernelConsole is a serial port that shows the status lines.
type KernelConsole struct {
	Device   string `json:"device"`              // such as "/dev/ttyS0"
	BaudRate int    `json:"baud_rate,omitempty"` // bits a second; 0 leaves what the firmware set
}

// KernelCPU says how processors choose their speed.
type KernelCPU struct {
	ScalingGovernor string `json:"scaling_governor,omitempty"` // such as "performance"; "" leaves it
}

// KernelMemory says how memory is divided.
type KernelMemory struct {
	PersistentHugepages int    `json:"persistent_hugepages"` // number of huge pages set aside; 0 is none
	ZramSwapSize        string `json:"zram_swap_size"`       // swap in compressed memory, such as "4GiB"; "" is the default, "0" is none
}

// KernelNetwork holds what sysctl calls net.core and net.ipv4.
type KernelNetwork struct {
	BufferSize             int    `json:"buffer_size,omitempty"`              // the most a socket may buffer, bytes
	NetdevMaxBacklog       int    `json:"netdev_max_backlog,omitempty"`       // packets waiting for the kernel
	QueuingDiscipline      string `json:"queuing_discipline,omitempty"`       // such as "fq"
	TCPCongestionAlgorithm string `json:"tcp_congestion_algorithm,omitempty"` // such as "bbr"
	TCPMTUProbing          bool   `json:"tcp_mtu_probing,omitempty"`          // find out the path's MTU when routers do not tell
}

// KernelPCI says which devices are kept for virtual machines.
type KernelPCI struct {
	Passthrough []PCIPassthrough `json:"passthrough,omitempty"`
	SRIOV       []PCISRIOV       `json:"sriov,omitempty"`
}

// A PCIPassthrough keeps devices away from the system's own drivers.
type PCIPassthrough struct {
	VendorID   string `json:"vendor_id"`             // four hexadecimal digits
	ProductID  string `json:"product_id"`            // four hexadecimal digits
	PCIAddress string `json:"pci_address,omitempty"` // one device, such as "0000:01:00.0"; "" is all of that kind
}

// A PCISRIOV divides a device into virtual ones.
type PCISRIOV struct {
	PCIAddress string `json:"pci_address"` // such as "0000:01:00.0"
	VFCount    int    `json:"vf_count"`    // virtual functions
}

// KernelZFS is how ZFS uses memory.
type KernelZFS struct {
	ARCMaxSize string `json:"arc_max_size,omitempty"` // the most that ZFS caches, such as "8GiB"; "" is its default
}

// SystemKernelState is what the kernel reports.
type SystemKernelState struct {
	Memory *KernelMemoryState `json:"memory,omitempty"`
}

// KernelMemoryState is how memory is used.
type KernelMemoryState struct {
	ZramSwap *ZramSwap `json:"zram_swap,omitempty"` // absent without such swap
}

// ZramSwap is what swap in compressed memory holds, in bytes.
type ZramSwap struct {
	DiskSize         uint64  `json:"disk_size"`         // what it can hold
	UncompressedSize uint64  `json:"incompressed_size"` // what it holds; the name is that of the wire
	CompressedSize   uint64  `json:"compressed_size"`   // what that takes
	CompressionRatio float64 `json:"compression_ratio"` // the former by the latter; 0 if it is empty
	TotalMemoryUse   uint64  `json:"total_memory_use"`  // with all that it takes to keep it
}
