package resources

import (
	"path"
	"strconv"
	"strings"

	"github.com/incusos/incusos/api"
)

// hub is the class of hubs, which are part of the bus and no device to use.
const hub = 9

const usbDir = "/sys/bus/usb/devices"

func (m machine) usb() api.ResourcesUSB {
	out := api.ResourcesUSB{Devices: []api.ResourcesUSBDevice{}}
	names := m.list(usbDir)
	for _, name := range names {
		dir := usbDir + "/" + name
		if strings.Contains(name, ":") || m.byte16(dir+"/bDeviceClass") == hub {
			continue // an interface, or a hub
		}
		d := api.ResourcesUSBDevice{
			BusAddress: m.number(dir + "/busnum"), DeviceAddress: m.number(dir + "/devnum"), Serial: m.text(dir + "/serial"),
			Vendor: m.text(dir + "/manufacturer"), VendorID: m.text(dir + "/idVendor"),
			Product: m.text(dir + "/product"), ProductID: m.text(dir + "/idProduct"),
			Interfaces: []api.ResourcesUSBDeviceInterface{},
		}
		if speed, err := strconv.ParseFloat(m.text(dir+"/speed"), 64); err == nil && speed >= 0 && speed < 1e9 {
			d.Speed = speed
		}
		for _, other := range names {
			if strings.HasPrefix(other, name+":") {
				d.Interfaces = append(d.Interfaces, m.usbInterface(usbDir+"/"+other))
			}
		}
		out.Devices = append(out.Devices, d)
	}
	return out
}

func (m machine) usbInterface(dir string) api.ResourcesUSBDeviceInterface {
	i := api.ResourcesUSBDeviceInterface{ClassID: m.byte16(dir + "/bInterfaceClass"), SubClassID: m.byte16(dir + "/bInterfaceSubClass"), Number: m.byte16(dir + "/bInterfaceNumber")}
	i.Class = usbClass(i.ClassID)
	i.Driver, i.DriverVersion = m.driver(dir)
	return i
}

// byte16 reads two hexadecimal digits.
func (m machine) byte16(name string) uint64 {
	n, err := strconv.ParseUint(m.text(name), 16, 8)
	if err != nil {
		return 0
	}
	return n
}

// usbClass is what a class of interfaces is called (USB-IF, defined class
// codes); "" for rare ones.
func usbClass(id uint64) string {
	switch id {
	case 0x01:
		return "Audio"
	case 0x02:
		return "Communications"
	case 0x03:
		return "Human Interface Device"
	case 0x07:
		return "Printer"
	case 0x08:
		return "Mass Storage"
	case hub:
		return "Hub"
	case 0x0a:
		return "CDC Data"
	case 0x0b:
		return "Smart Card"
	case 0x0e:
		return "Video"
	case 0xe0:
		return "Wireless"
	case 0xff:
		return "Vendor Specific Class"
	}
	return ""
}

// serial returns the serial ports that are on the USB: one cannot tell whether
// the others are there at all.
func (m machine) serial() api.ResourcesSerial {
	out := api.ResourcesSerial{Devices: []api.ResourcesSerialDevice{}}
	ids, paths := m.names("/dev/serial/by-id"), m.names("/dev/serial/by-path")
	for _, name := range m.list("/sys/class/tty") {
		dir := "/sys/class/tty/" + name
		p := m.where(m.real(dir))
		if p.usb == "" {
			continue
		}
		d := api.ResourcesSerialDevice{
			ID: name, Device: m.text(dir + "/dev"), DeviceID: below("/dev/serial/by-id", ids[name]), DevicePath: below("/dev/serial/by-path", paths[name]),
			Vendor: m.text(p.usb + "/manufacturer"), VendorID: m.text(p.usb + "/idVendor"),
			Product: m.text(p.usb + "/product"), ProductID: m.text(p.usb + "/idProduct"),
		}
		d.Driver, _ = m.driver(path.Dir(path.Dir(m.real(dir)))) // .../1-1:1.0/ttyUSB0/tty/ttyUSB0, or one less
		out.Devices = append(out.Devices, d)
	}
	return out
}

func below(dir, name string) string {
	if name == "" {
		return ""
	}
	return dir + "/" + name
}
