package systest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/incusos/incusos/internal/sys"
)

// A Machine describes hardware to pretend, as in the file of
// `incus-osd --pretend --machine FILE`.
type Machine struct {
	SecureBoot string  `json:"secure_boot"` // "on", "off", "setup", or "absent" for no UEFI
	TPM        bool    `json:"tpm"`         // a TPM 2.0 is there
	Lacks      string  `json:"lacks"`       // what it was installed without, as package seal says it: "secure boot", or "tpm" for one in software
	Memory     uint64  `json:"memory"`      // bytes
	Drives     []Drive `json:"drives"`
	NICs       []NIC   `json:"nics"`
	PCI        []PCI   `json:"pci"` // besides what drives and network cards are on

	Version string `json:"version"` // of the system that runs; "" for 202601010000
	Loader  string `json:"loader"`  // kernel name of the boot partition, as the boot loader says it, such as "vda1"; "": it does not say
	Incus   string `json:"incus"`   // socket of an Incus that runs beside the machine, in the calling system's tree; "": one is pretended

	// Programs are those of services that the image has, by name. The rest of
	// what there is needs no file to be run.
	Programs []string `json:"programs"`
}

// A Drive is a disk to pretend.
type Drive struct {
	Name       string      `json:"name"` // kernel name, such as "sda"
	ID         string      `json:"id"`   // name in /dev/disk/by-id
	Bus        string      `json:"bus"`  // "usb", or "" for what the name says
	Model      string      `json:"model"`
	Serial     string      `json:"serial"`
	Size       uint64      `json:"size"` // bytes
	Removable  bool        `json:"removable"`
	Partitions []Partition `json:"partitions"`
}

// A Partition is a part of a Drive. They lie one after another from 1 MiB on.
type Partition struct {
	Label string `json:"label"`
	Size  uint64 `json:"size"` // bytes
}

// A NIC is a network card to pretend.
type NIC struct {
	Name      string   `json:"name"`
	Hwaddr    string   `json:"hwaddr"`
	Up        bool     `json:"up"`
	Addresses []string `json:"addresses"`
}

// Sensible is an installed machine: Secure Boot on, a TPM, 4 GiB of memory,
// one 64 GiB drive partitioned as IncusOS does, and one network card.
func Sensible() Machine {
	return Machine{
		SecureBoot: "on",
		TPM:        true,
		Memory:     4 << 30,
		Drives: []Drive{{
			Name: "vda", ID: "virtio-pretend0", Serial: "pretend0", Size: 64 << 30,
			Partitions: []Partition{
				{"esp", 512 << 20}, {"seed-data", 512 << 20},
				{"IncusOS_202601010000_verity_sig", 16 << 10}, {"IncusOS_202601010000_verity", 16 << 20}, {"IncusOS_202601010000", 1 << 30},
				{"_empty", 16 << 10}, {"_empty", 16 << 20}, {"_empty", 1 << 30},
				{"root", 4 << 30}, {"local-data", 56 << 30},
			},
		}},
		NICs: []NIC{{Name: "enp1s0", Hwaddr: "02:00:00:00:00:01", Up: true, Addresses: []string{"192.0.2.10/24"}}},
		PCI: []PCI{
			{Address: "0000:01:00.0", Vendor: "10de", Device: "1eb8", Class: "030200", Driver: "nouveau"},
			{Address: "0000:02:00.0", Vendor: "8086", Device: "1572", Class: "020000", Driver: "i40e", TotalVFs: 4},
		},
		Programs: []string{
			"ceph", "iscsiadm", "iscsid", "lvmlockd", "multipath", "multipathd", "nvme", "ovn-controller", "ovs-vsctl", "pvs", "rbd",
			"sanlock", "usbip", "vgs",
		},
	}
}

// ReadMachine reads the description in the named file of the calling system.
func ReadMachine(name string) (Machine, error) {
	f, err := os.Open(name)
	if err != nil {
		return Machine{}, err
	}
	defer f.Close()
	d := json.NewDecoder(f)
	d.DisallowUnknownFields()
	m := Sensible()
	if err := d.Decode(&m); err != nil {
		return Machine{}, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

func (m Machine) links() []sys.Link {
	var links []sys.Link
	for _, n := range m.NICs {
		links = append(links, sys.Link{Name: n.Name, Hwaddr: n.Hwaddr, Current: n.Hwaddr, MTU: 1500, Enabled: true, Up: n.Up, Physical: true, Addresses: n.Addresses})
	}
	return links
}

// osRelease makes the tree's release file; a version of another kind than the
// real ones would not be a version.
const osRelease = `NAME="IncusOS"
ID=incusos
ID_LIKE=debian
VERSION_ID=%[1]s
IMAGE_ID=IncusOS
IMAGE_VERSION=%[1]s
`

// firstVersion is what pretend machines run unless something else is said.
const firstVersion = "202601010000"

// Populate writes what m consists of into root. Files of an earlier run that
// are not hardware are left alone.
func Populate(root string, m Machine) error {
	t := &tree{root: root}
	t.remove("/sys", "/dev/disk", "/proc")
	t.write("/usr/lib/os-release", fmt.Sprintf(osRelease, cmp.Or(m.Version, firstVersion)))
	t.write("/proc/meminfo", fmt.Sprintf("MemTotal:       %d kB\n", m.Memory>>10))
	t.write("/proc/uptime", "60.00 100.00\n")
	t.keep("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
	t.mkdir("/run")
	t.running()
	t.firmware(m.SecureBoot)
	t.loader(m.Loader)
	if m.TPM {
		t.write("/sys/class/tpm/tpm0/tpm_version_major", "2\n")
		t.write("/dev/tpmrm0", "")
		t.tpm()
	}
	for _, d := range m.Drives {
		t.drive(d)
	}
	t.kernel(m)
	t.hardware()
	for _, p := range m.Programs {
		t.write("/usr/sbin/"+p, "")
	}
	return t.err
}

// tree writes files until the first error.
type tree struct {
	root string
	err  error
}

func (t *tree) path(name string) string { return filepath.Join(t.root, name) }

func (t *tree) remove(names ...string) {
	for _, n := range names {
		if t.err == nil {
			t.err = os.RemoveAll(t.path(n))
		}
	}
}

func (t *tree) mkdir(name string) {
	if t.err == nil {
		t.err = os.MkdirAll(t.path(name), 0o755)
	}
}

func (t *tree) write(name, content string) {
	t.mkdir(filepath.Dir(name))
	if t.err == nil {
		t.err = os.WriteFile(t.path(name), []byte(content), 0o644)
	}
}

func (t *tree) keep(name, content string) {
	if _, err := os.Stat(t.path(name)); err != nil {
		t.write(name, content)
	}
}

func (t *tree) symlink(target, name string) {
	t.mkdir(filepath.Dir(name))
	if t.err == nil {
		t.err = os.Symlink(target, t.path(name))
	}
}

// device makes a sparse file stand for a device; its content survives.
func (t *tree) device(name string, size uint64) {
	t.mkdir(filepath.Dir(name))
	if t.err != nil {
		return
	}
	f, err := os.OpenFile(t.path(name), os.O_RDWR|os.O_CREATE, fs.FileMode(0o644))
	if err != nil {
		t.err = err
		return
	}
	if err := f.Truncate(int64(size)); err != nil { //nolint:gosec // sizes of pretend disks
		t.err = err
	}
	if err := f.Close(); t.err == nil {
		t.err = err
	}
}

// globalVariable is EFI_GLOBAL_VARIABLE (UEFI 2.10, section 3.3).
const globalVariable = "8be4df61-93ca-11d2-aa0d-00e098032b8c"

// firmware writes EFI variables: four bytes of attributes, then the value
// (kernel documentation, filesystems/efivarfs).
func (t *tree) firmware(secureBoot string) {
	if secureBoot == "absent" {
		return
	}
	dir := "/sys/firmware/efi/efivars/"
	on, setup := "\x00", "\x00"
	switch secureBoot {
	case "on":
		on = "\x01"
	case "setup":
		setup = "\x01"
	}
	t.write(dir+"SecureBoot-"+globalVariable, "\x06\x00\x00\x00"+on)
	t.write(dir+"SetupMode-"+globalVariable, "\x06\x00\x00\x00"+setup)
}

// loader has the boot loader say which partition it is from (Boot Loader Interface).
func (t *tree) loader(partition string) {
	if partition == "" {
		return
	}
	id := pretendUUID(partition)
	value := []byte{6, 0, 0, 0}
	for _, c := range []byte(id) {
		value = append(value, c, 0)
	}
	t.write("/sys/firmware/efi/efivars/LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f", string(append(value, 0, 0)))
	t.symlink("../../"+partition, "/dev/disk/by-partuuid/"+strings.ToLower(id))
}

func (t *tree) drive(d Drive) {
	where := "../devices/pci0000:00/0000:00:01.0/block/" + d.Name
	if d.Bus == "usb" {
		where = "../devices/pci0000:00/0000:00:02.0/usb1/1-1/block/" + d.Name
	}
	dir := filepath.Join("/sys/block", where)
	t.symlink(where, "/sys/block/"+d.Name)
	t.write(dir+"/size", fmt.Sprintln(d.Size/512))
	t.write(dir+"/removable", flag(d.Removable))
	t.write(dir+"/ro", flag(false))
	t.write(dir+"/serial", d.Serial+"\n")
	t.write(dir+"/device/model", d.Model+"\n")
	t.device("/dev/"+d.Name, d.Size)
	if d.ID != "" {
		t.symlink("../../"+d.Name, "/dev/disk/by-id/"+d.ID)
	}
	start := uint64(1 << 20)
	for i, p := range d.Partitions {
		t.partition(d.Name, dir, i+1, start, p)
		start += p.Size
	}
}

func (t *tree) partition(disk, dir string, number int, start uint64, p Partition) {
	name := node(disk, number)
	dir += "/" + name
	t.write(dir+"/partition", fmt.Sprintln(number))
	t.write(dir+"/start", fmt.Sprintln(start/512))
	t.write(dir+"/size", fmt.Sprintln(p.Size/512))
	t.write(dir+"/uevent", fmt.Sprintf("DEVTYPE=partition\nPARTN=%d\nPARTNAME=%s\n", number, p.Label))
	t.device("/dev/"+name, p.Size)
	if link := "/dev/disk/by-partlabel/" + p.Label; p.Label != "_empty" {
		if _, err := os.Lstat(t.path(link)); err != nil {
			t.symlink("../../"+name, link)
		}
	}
}

func flag(b bool) string {
	if b {
		return "1\n"
	}
	return "0\n"
}
