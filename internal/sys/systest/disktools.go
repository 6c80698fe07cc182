package systest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/incusos/incusos/internal/sys"
)

// DiskTools models what partitions and formats the disks of a rig: sfdisk,
// which keeps a table and shows it in sysfs and /dev; mkfs.vfat; and mounts with
// content. A file system is a directory; mounting it makes the target a symlink
// to that directory.
type DiskTools struct {
	files  sys.Dir
	mu     sync.Mutex
	tables map[string][]TableEntry // by kernel name of the disk
	kinds  map[string]string       // kind of file system, by kernel name of the device
	mounts map[string]string       // what is mounted, by target
}

// A TableEntry is a partition as sfdisk reports it.
type TableEntry struct {
	Node  string `json:"node"`
	Start uint64 `json:"start"` // sectors
	Size  uint64 `json:"size"`  // sectors
	Type  string `json:"type"`
	UUID  string `json:"uuid"`
	Name  string `json:"name"`
	Attrs string `json:"attrs,omitempty"`
}

// AddDiskTools gives rig the models and puts them behind its Host.
func AddDiskTools(rig *Rig) *DiskTools {
	d := AddTables(rig)
	rig.Programs.Model("mkfs.vfat", d.mkfs)
	rig.Host.Mounts = d
	return d
}

// AddTables gives rig the model of sfdisk alone.
func AddTables(rig *Rig) *DiskTools {
	d := &DiskTools{
		files:  rig.Host.Files,
		tables: make(map[string][]TableEntry),
		kinds:  make(map[string]string),
		mounts: make(map[string]string),
	}
	rig.Programs.Model("sfdisk", d.sfdisk)
	return d
}

// Table returns the partitions of a disk, by number.
func (d *DiskTools) Table(disk string) []TableEntry {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.table(path.Base(disk))
}

// FileSystem makes an empty file system on a device and returns the directory,
// in the calling system, that is its content.
func (d *DiskTools) FileSystem(device, kind string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name := d.resolve(device)
	d.kinds[name] = kind
	dir := d.content(name)
	return dir, errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755))
}

// Content returns the directory that FileSystem made for a device.
func (d *DiskTools) Content(device string) string { return d.content(d.resolve(device)) }

func (d *DiskTools) content(name string) string { return d.files.Path("/.filesystems/" + name) }

// resolve returns the kernel name of a device that may be given by a symlink.
func (d *DiskTools) resolve(device string) string {
	if target, err := d.files.Readlink(device); err == nil {
		return path.Base(target)
	}
	return path.Base(device)
}

func (d *DiskTools) mkfs(_ context.Context, c sys.Cmd) ([]byte, error) {
	device := c.Args[len(c.Args)-1]
	if !d.files.Exists(device) {
		return nil, &sys.ExecError{Name: c.Name, Code: 1, Stderr: device + ": No such file or directory"}
	}
	_, err := d.FileSystem(device, "vfat")
	return nil, err
}

// Mount implements sys.Mounter.
func (d *DiskTools) Mount(source, target, fstype string, _ ...string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	name := d.resolve(source)
	if d.kinds[name] != fstype {
		return fmt.Errorf("mounting %s on %s: it holds no %s", source, target, fstype)
	}
	if _, busy := d.mounts[target]; busy {
		return fmt.Errorf("mounting %s on %s: the pretend machine stacks no mounts", source, target)
	}
	if err := os.Remove(d.files.Path(target)); err != nil {
		return fmt.Errorf("mounting %s on %s: the target is no empty directory: %w", source, target, err)
	}
	d.mounts[target] = name
	return os.Symlink(d.content(name), d.files.Path(target))
}

// Unmount implements sys.Mounter.
func (d *DiskTools) Unmount(target string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.mounts[target]; !ok {
		return fmt.Errorf("unmounting %s: not mounted", target)
	}
	delete(d.mounts, target)
	return errors.Join(os.Remove(d.files.Path(target)), os.Mkdir(d.files.Path(target), 0o755))
}

// Usage implements sys.Mounter as Mounts does.
func (d *DiskTools) Usage(string) (size, free uint64, err error) { return 25 << 30, 20 << 30, nil }

// Mounted returns how many file systems are mounted.
func (d *DiskTools) Mounted() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.mounts)
}

// sfdisk knows five forms: `--json DISK`, `--part-label DISK N LABEL`,
// `--part-uuid DISK N UUID`,
// `[options] --delete DISK N...`, which takes partitions off the end, and
// `[options] DISK` with a script for a new table on its standard input.
func (d *DiskTools) sfdisk(_ context.Context, c sys.Cmd) (out []byte, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch i := slices.Index(c.Args, "--part-label"); {
	case i >= 0 && len(c.Args) == i+4:
		err = d.label(c.Args[i+1], c.Args[i+2], c.Args[i+3])
	case slices.Contains(c.Args, "--part-uuid"):
		err = d.identify(c.Args[slices.Index(c.Args, "--part-uuid")+1:])
	case slices.Contains(c.Args, "--delete"):
		err = d.delete(c.Args[slices.Index(c.Args, "--delete")+1:])
	case slices.Contains(c.Args, "--json"):
		return d.json(c.Args[len(c.Args)-1])
	default:
		err = d.script(c.Args[len(c.Args)-1], c.Stdin)
	}
	if err != nil {
		return nil, &sys.ExecError{Name: "sfdisk", Code: 1, Stderr: err.Error()}
	}
	return nil, nil
}

func (d *DiskTools) json(disk string) ([]byte, error) {
	table := d.table(path.Base(disk))
	if len(table) == 0 {
		return nil, &sys.ExecError{Name: "sfdisk", Code: 1, Stderr: disk + ": does not contain a recognized partition table"}
	}
	return json.Marshal(map[string]any{"partitiontable": map[string]any{
		"label": "gpt", "device": disk, "unit": "sectors", "sectorsize": 512, "partitions": table,
	}})
}

// table returns the recorded table of a disk, or makes one up for a disk that
// the machine's description partitioned.
func (d *DiskTools) table(disk string) []TableEntry {
	if t, ok := d.tables[disk]; ok {
		return slices.Clone(t)
	}
	disks, err := sys.Disks(d.files)
	if err != nil {
		return nil
	}
	var table []TableEntry
	for _, k := range disks {
		if k.Name != disk {
			continue
		}
		for _, p := range k.Partitions {
			if p.Number == 0 {
				continue
			}
			table = append(table, TableEntry{p.Path, p.Start / 512, p.Size / 512, typeOf(p.Label), pretendUUID(p.Path), p.Label, ""})
		}
	}
	return table
}

// typeOf returns the type a partition of IncusOS has (Discoverable Partitions
// Specification, x86-64), going by its label.
func typeOf(label string) string {
	switch {
	case label == "esp":
		return "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
	case strings.HasSuffix(label, "_verity_sig"):
		return "E7BB33FB-06CF-4E81-8273-E543B413E2E2"
	case strings.HasSuffix(label, "_verity"):
		return "77FF5F63-E7B6-4633-ACF4-1565B864C0E6"
	case strings.HasPrefix(label, "IncusOS_"):
		return "8484680C-9521-48C6-9C11-B0720656F69E"
	}
	return "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
}

// pretendUUID makes an id from a name, so that every partition has its own.
func pretendUUID(node string) string {
	return strings.ToUpper(fmt.Sprintf("00000000-0000-4000-8000-%012x", path.Base(node)))[:36]
}

func (d *DiskTools) label(disk, number, label string) error {
	table := d.table(path.Base(disk))
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 || n > len(table) {
		return fmt.Errorf("%s: partition %s is unused", disk, number)
	}
	table[n-1].Name = label
	return d.show(path.Base(disk), table)
}

// identify gives a partition another UUID.
func (d *DiskTools) identify(args []string) error {
	if len(args) != 3 {
		return errors.New("want a disk, a number and a UUID")
	}
	table := d.table(path.Base(args[0]))
	n, err := strconv.Atoi(args[1])
	if err != nil || n < 1 || n > len(table) {
		return fmt.Errorf("%s: partition %s is unused", args[0], args[1])
	}
	table[n-1].UUID = args[2]
	return d.show(path.Base(args[0]), table)
}

// delete takes all partitions away or none. What --no-tell-kernel leaves for the
// next boot shows at once.
func (d *DiskTools) delete(args []string) error {
	table := d.table(path.Base(args[0]))
	for _, number := range slices.Backward(args[1:]) {
		if n, err := strconv.Atoi(number); err != nil || n != len(table) {
			return fmt.Errorf("%s: partition %s: failed to delete", args[0], number)
		}
		table = table[:len(table)-1]
	}
	return d.show(path.Base(args[0]), table)
}

func (d *DiskTools) script(disk string, script io.Reader) error {
	if script == nil || !d.files.Exists("/sys/block/"+path.Base(disk)) {
		return fmt.Errorf("%s: no such disk, or no script", disk)
	}
	sectors, err := d.sectors(path.Base(disk))
	if err != nil {
		return err
	}
	var table []TableEntry
	next := uint64(2048)
	lines := bufio.NewScanner(script)
	for lines.Scan() {
		if !strings.Contains(lines.Text(), "=") {
			continue // a header such as "label: gpt"
		}
		e, err := scriptLine(lines.Text())
		if err != nil {
			return err
		}
		e.Start = max(e.Start, next)
		e.Node = "/dev/" + node(path.Base(disk), len(table)+1)
		if e.UUID == "" {
			e.UUID = pretendUUID(e.Node)
		}
		next = (e.Start + e.Size + 2047) / 2048 * 2048
		if e.Start+e.Size > sectors-34 {
			return fmt.Errorf("partition %d: all space for primary partitions is in use", len(table)+1)
		}
		table = append(table, e)
	}
	if err := d.magic(disk); err != nil {
		return err
	}
	return d.show(path.Base(disk), table)
}

func (d *DiskTools) sectors(disk string) (uint64, error) {
	b, err := d.files.ReadFile("/sys/block/" + disk + "/size")
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
}

// magic writes what tells that a disk has a GPT.
func (d *DiskTools) magic(disk string) error {
	f, err := os.OpenFile(d.files.Path(disk), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte("EFI PART"), 512)
	return errors.Join(err, f.Close())
}

func scriptLine(line string) (TableEntry, error) {
	var e TableEntry
	quoted := false
	for _, field := range strings.FieldsFunc(line, func(r rune) bool {
		quoted = quoted != (r == '"')
		return r == ',' && !quoted
	}) {
		key, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		value = strings.Trim(value, `"`)
		var err error
		switch key {
		case "start":
			e.Start, err = scriptSize(value)
		case "size":
			e.Size, err = scriptSize(value)
		case "type":
			e.Type = strings.ToUpper(value)
		case "uuid":
			e.UUID = strings.ToUpper(value)
		case "name":
			e.Name = value
		case "attrs":
			e.Attrs = value
		default:
			err = fmt.Errorf("unknown field %q", key)
		}
		if err != nil {
			return TableEntry{}, fmt.Errorf("%s: %w", line, err)
		}
	}
	return e, nil
}

// scriptSize returns sectors.
func scriptSize(s string) (uint64, error) {
	for unit, bytes := range map[string]uint64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if digits, ok := strings.CutSuffix(s, unit); ok {
			n, err := strconv.ParseUint(digits, 10, 32)
			return n * bytes / 512, err
		}
	}
	return strconv.ParseUint(s, 10, 64)
}

// node returns the kernel's name of a partition.
func node(disk string, number int) string {
	if last := disk[len(disk)-1]; last >= '0' && last <= '9' {
		disk += "p"
	}
	return disk + strconv.Itoa(number)
}

// show makes sysfs and /dev say what the table says. What devices hold stays,
// as on a disk whose partitions come to lie where the old ones were.
func (d *DiskTools) show(disk string, table []TableEntry) error {
	target, err := d.files.Readlink("/sys/block/" + disk)
	if err != nil {
		return err
	}
	dir := filepath.Join("/sys/block", target)
	if err := d.hide(disk, dir); err != nil {
		return err
	}
	t := &tree{root: d.files.Path("/")}
	for i, e := range table {
		t.partition(disk, dir, i+1, e.Start*512, Partition{e.Name, e.Size * 512})
		t.remove("/dev/disk/by-partuuid/" + strings.ToLower(e.UUID)) // of two with one id, udev shows the last
		t.symlink("../../"+node(disk, i+1), "/dev/disk/by-partuuid/"+strings.ToLower(e.UUID))
	}
	d.tables[disk] = table
	return t.err
}

// hide removes the partitions of a disk from sysfs, and links to them.
func (d *DiskTools) hide(disk, dir string) error {
	for n := 1; n <= 128; n++ {
		if err := os.RemoveAll(d.files.Path(dir + "/" + node(disk, n))); err != nil {
			return err
		}
	}
	for _, by := range []string{"/dev/disk/by-partlabel", "/dev/disk/by-partuuid"} {
		entries, err := d.files.ReadDir(by)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, e := range entries {
			to, _ := d.files.Readlink(by + "/" + e.Name())
			if number, ok := strings.CutPrefix(path.Base(to), disk); ok && strings.Trim(number, "p0123456789") == "" {
				if err := os.Remove(d.files.Path(by + "/" + e.Name())); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
