package resources

import (
	"strings"

	"github.com/incusos/incusos/api"
)

const dmi = "/sys/class/dmi/id/"

func (m machine) system() api.ResourcesSystem {
	return api.ResourcesSystem{
		UUID: strings.ToLower(m.text(dmi + "product_uuid")), Vendor: m.text(dmi + "sys_vendor"), Product: m.text(dmi + "product_name"),
		Family: m.text(dmi + "product_family"), Version: m.text(dmi + "product_version"), SKU: m.text(dmi + "product_sku"),
		Serial: m.text(dmi + "product_serial"), Type: m.kind(),
		Firmware: &api.ResourcesSystemFirmware{Vendor: m.text(dmi + "bios_vendor"), Date: m.text(dmi + "bios_date"), Version: m.text(dmi + "bios_version")},
		Chassis: &api.ResourcesSystemChassis{
			Vendor: m.text(dmi + "chassis_vendor"), Type: chassis(m.number(dmi + "chassis_type")),
			Serial: m.text(dmi + "chassis_serial"), Version: m.text(dmi + "chassis_version"),
		},
		Motherboard: &api.ResourcesSystemMotherboard{
			Vendor: m.text(dmi + "board_vendor"), Product: m.text(dmi + "board_name"),
			Serial: m.text(dmi + "board_serial"), Version: m.text(dmi + "board_version"),
		},
	}
}

// kind tells virtual machines by what the processor says of itself, and by who
// made them.
func (m machine) kind() string {
	for _, info := range parseCPUinfo(m.text("/proc/cpuinfo")) {
		if strings.Contains(" "+info["flags"]+" ", " hypervisor ") {
			return "virtual-machine"
		}
	}
	switch m.text(dmi + "sys_vendor") {
	case "QEMU", "VMware, Inc.", "innotek GmbH", "Xen", "Bochs":
		return "virtual-machine"
	}
	return "physical"
}

// chassis is what a type of case is called (SMBIOS 3.7, section 7.4.1); "" for
// rare ones.
func chassis(n uint64) string {
	names := map[uint64]string{
		1: "Other", 2: "Unknown", 3: "Desktop", 4: "Low Profile Desktop", 5: "Pizza Box", 6: "Mini Tower", 7: "Tower",
		8: "Portable", 9: "Laptop", 10: "Notebook", 13: "All in One", 14: "Sub Notebook", 15: "Space-saving",
		17: "Main Server Chassis", 23: "Rack Mount Chassis", 28: "Blade", 29: "Blade Enclosure",
		31: "Convertible", 33: "IoT Gateway", 34: "Embedded PC", 35: "Mini PC", 36: "Stick PC",
	}
	return names[n]
}

func (m machine) load() api.ResourcesLoad {
	means, processes := loadAverages(m.text("/proc/loadavg"))
	return api.ResourcesLoad{Average1Min: means[0], Average5Min: means[1], Average10Min: means[2], Processes: processes}
}
