package systest

import "fmt"

// hardware describes what every pretend machine consists of: a virtual machine
// with one processor of two cores, on which little runs.
func (t *tree) hardware() {
	t.write("/proc/sys/kernel/arch", "x86_64\n")
	t.write("/proc/loadavg", "0.10 0.20 0.30 1/99 1234\n")
	for core := range 2 {
		dir := fmt.Sprintf("/sys/devices/system/cpu/cpu%d/topology/", core)
		t.write(dir+"physical_package_id", "0\n")
		t.write(dir+"die_id", "0\n")
		t.write(dir+"core_id", fmt.Sprintln(core))
	}
	for name, value := range map[string]string{
		"sys_vendor": "QEMU", "product_name": "Pretend Machine", "bios_vendor": "EDK II", "bios_date": "01/01/2026",
		"bios_version": "1", "chassis_type": "1", "chassis_vendor": "QEMU",
	} {
		t.write("/sys/class/dmi/id/"+name, value+"\n")
	}
}
