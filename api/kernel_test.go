package api_test

import (
	"testing"

	"github.com/incusos/incusos/api"
)

func TestKernelConfig(t *testing.T) {
	memory := func(pages int, swap string) api.SystemKernelConfig {
		return api.SystemKernelConfig{Memory: &api.KernelMemory{PersistentHugepages: pages, ZramSwapSize: swap}}
	}
	network := func(n api.KernelNetwork) api.SystemKernelConfig { return api.SystemKernelConfig{Network: &n} }
	pass := func(d ...api.PCIPassthrough) api.SystemKernelConfig {
		return api.SystemKernelConfig{PCI: &api.KernelPCI{Passthrough: d}}
	}
	divide := func(d ...api.PCISRIOV) api.SystemKernelConfig {
		return api.SystemKernelConfig{PCI: &api.KernelPCI{SRIOV: d}}
	}
	console := func(c ...api.KernelConsole) api.SystemKernelConfig { return api.SystemKernelConfig{Console: c} }
	modules := func(m ...string) api.SystemKernelConfig { return api.SystemKernelConfig{BlacklistModules: m} }
	both := pass(api.PCIPassthrough{VendorID: "10de", ProductID: "1eb8", PCIAddress: "0000:01:00.0"})
	both.PCI.SRIOV = []api.PCISRIOV{{PCIAddress: "0000:01:00.0", VFCount: 1}}

	tests := map[string]struct {
		cfg   api.SystemKernelConfig
		field string // that is blamed, "" for none
	}{
		"nothing":            {api.SystemKernelConfig{}, ""},
		"consoles":           {console(api.KernelConsole{Device: "/dev/ttyS0", BaudRate: 115200}, api.KernelConsole{Device: "/dev/hvc0"}), ""},
		"console elsewhere":  {console(api.KernelConsole{Device: "/dev/../etc/passwd"}), "console[0].device"},
		"console without":    {console(api.KernelConsole{Device: "ttyS0"}), "console[0].device"},
		"console twice":      {console(api.KernelConsole{Device: "/dev/ttyS0"}, api.KernelConsole{Device: "/dev/ttyS0"}), "console[1].device"},
		"odd speed":          {console(api.KernelConsole{Device: "/dev/ttyS0", BaudRate: 115201}), "console[0].baud_rate"},
		"modules":            {modules("nouveau", "snd-hda-intel"), ""},
		"module twice":       {modules("snd-hda-intel", "snd_hda_intel"), "blacklist_modules[1]"},
		"module with option": {modules("nouveau modeset=0"), "blacklist_modules[0]"},
		"module with line":   {modules("a\ninstall b /bin/sh"), "blacklist_modules[0]"},
		"no module":          {modules(""), "blacklist_modules[0]"},
		"governor":           {api.SystemKernelConfig{CPU: &api.KernelCPU{ScalingGovernor: "schedutil"}}, ""},
		"governor with line": {api.SystemKernelConfig{CPU: &api.KernelCPU{ScalingGovernor: "a\n"}}, "cpu.scaling_governor"},
		"memory":             {memory(512, "4GiB"), ""},
		"no swap":            {memory(0, "0"), ""},
		"negative pages":     {memory(-1, ""), "memory.persistent_hugepages"},
		"negative swap":      {memory(0, "-1GiB"), "memory.zram_swap_size"},
		"little swap":        {memory(0, "1MiB"), "memory.zram_swap_size"},
		"network":            {network(api.KernelNetwork{BufferSize: 16 << 20, NetdevMaxBacklog: 5000, QueuingDiscipline: "fq_codel", TCPCongestionAlgorithm: "bbr"}), ""},
		"negative buffer":    {network(api.KernelNetwork{BufferSize: -1}), "network.buffer_size"},
		"huge buffer":        {network(api.KernelNetwork{BufferSize: 1 << 31}), "network.buffer_size"},
		"negative backlog":   {network(api.KernelNetwork{NetdevMaxBacklog: -1}), "network.netdev_max_backlog"},
		"discipline":         {network(api.KernelNetwork{QueuingDiscipline: "fq;"}), "network.queuing_discipline"},
		"algorithm":          {network(api.KernelNetwork{TCPCongestionAlgorithm: "../bbr"}), "network.tcp_congestion_algorithm"},
		"passthrough":        {pass(api.PCIPassthrough{VendorID: "10de", ProductID: "1eb8"}, api.PCIPassthrough{VendorID: "10de", ProductID: "1eb8", PCIAddress: "0000:01:00.7"}), ""},
		"vendor in capitals": {pass(api.PCIPassthrough{VendorID: "10DE", ProductID: "1eb8"}), "pci.passthrough[0].vendor_id"},
		"vendor with 0x":     {pass(api.PCIPassthrough{VendorID: "0x10de", ProductID: "1eb8"}), "pci.passthrough[0].vendor_id"},
		"no product":         {pass(api.PCIPassthrough{VendorID: "10de"}), "pci.passthrough[0].product_id"},
		"short address":      {pass(api.PCIPassthrough{VendorID: "10de", ProductID: "1eb8", PCIAddress: "01:00.0"}), "pci.passthrough[0].pci_address"},
		"passthrough twice":  {pass(api.PCIPassthrough{VendorID: "10de", ProductID: "1eb8"}, api.PCIPassthrough{VendorID: "10de", ProductID: "1eb8"}), "pci.passthrough[1]"},
		"division":           {divide(api.PCISRIOV{PCIAddress: "0000:01:00.0", VFCount: 8}, api.PCISRIOV{PCIAddress: "0000:01:00.1"}), ""},
		"no address":         {divide(api.PCISRIOV{VFCount: 8}), "pci.sriov[0].pci_address"},
		"negative count":     {divide(api.PCISRIOV{PCIAddress: "0000:01:00.0", VFCount: -8}), "pci.sriov[0].vf_count"},
		"division twice":     {divide(api.PCISRIOV{PCIAddress: "0000:01:00.0"}, api.PCISRIOV{PCIAddress: "0000:01:00.0"}), "pci.sriov[1].pci_address"},
		"both":               {both, "pci.sriov[0].pci_address"},
		"cache":              {api.SystemKernelConfig{ZFS: &api.KernelZFS{ARCMaxSize: "8GiB"}}, ""},
		"no cache":           {api.SystemKernelConfig{ZFS: &api.KernelZFS{ARCMaxSize: "0"}}, "zfs.arc_max_size"},
		"cache in words":     {api.SystemKernelConfig{ZFS: &api.KernelZFS{ARCMaxSize: "half"}}, "zfs.arc_max_size"},
	}
	for name, tt := range tests {
		if err := tt.cfg.Validate(); blamed(err) != tt.field {
			t.Errorf("%s: %v, want field %q blamed", name, err, tt.field)
		}
	}
}

func FuzzPCIAddress(f *testing.F) {
	for _, s := range []string{"0000:01:00.0", "0000:01:00.8", "0000:01:00", "::.", "", "0000.01:00:0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if api.PCIAddress(s) && (len(s) != 12 || s[4] != ':' || s[7] != ':' || s[10] != '.') {
			t.Errorf("%q passes as an address", s)
		}
	})
}
