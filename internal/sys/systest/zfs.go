package systest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/incusos/incusos/internal/sys"
)

// ZFS models OpenZFS on one machine: blkid, zpool and zfs. What a
// pool is made of lies in the file that stands for its device, so that it
// outlives the model as a real pool outlives a boot. Pools have one device, are
// encrypted and are read from /dev.
type ZFS struct {
	rig      *Rig
	mu       sync.Mutex
	imported map[string]*zpool
}

// A zpool is what the model keeps on the device.
type zpool struct {
	Name     string   `json:"name"`
	Location string   `json:"keylocation"` // name of the key file
	Digest   string   `json:"digest"`      // of the key
	Datasets []string `json:"datasets"`    // below the pool's own
	Torn     bool     `json:"torn"`        // made half; no import finds it

	device   string
	unlocked bool
}

const zfsLabel = "pretend zfs label\n"

// NewZFS adds OpenZFS to the programs of rig.
func NewZFS(rig *Rig) *ZFS {
	z := &ZFS{rig: rig, imported: make(map[string]*zpool)}
	rig.Programs.Model("blkid", z.blkid)
	rig.Programs.Model("zpool", z.zpool)
	rig.Programs.Model("zfs", z.zfs)
	return z
}

// Reboot forgets what a boot forgets: the module, imports and loaded keys.
func (z *ZFS) Reboot() error {
	z.mu.Lock()
	defer z.mu.Unlock()
	clear(z.imported)
	if err := z.rig.Host.Files.RemoveAll("/proc/spl"); err != nil {
		return err
	}
	return z.rig.Host.Files.RemoveAll("/sys/module/zfs")
}

// Unlocked reports whether the pool is imported and its key loaded.
func (z *ZFS) Unlocked(name string) bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	p := z.imported[name]
	return p != nil && p.unlocked
}

// Make puts a pool on device as another machine would have: exported, its key
// unknown here. With torn it is as if the power had gone in `zpool create`.
func (z *ZFS) Make(name, device string, torn bool) error {
	return z.save(&zpool{Name: name, Torn: torn, Digest: "unknown here", device: device})
}

func (z *ZFS) blkid(_ context.Context, c sys.Cmd) ([]byte, error) {
	device := c.Args[len(c.Args)-1]
	p, head, err := z.load(device)
	switch {
	case err != nil:
		return nil, err
	case p != nil:
		return []byte("TYPE=zfs_member\nUSAGE=filesystem\nLABEL=" + p.Name + "\n"), nil
	case bytes.Trim(head, "\x00") == nil:
		return []byte("PART_ENTRY_SCHEME=gpt\nPART_ENTRY_NAME=local-data\n"), nil
	}
	return []byte("TYPE=ext4\nUSAGE=filesystem\n"), nil
}

// load reads the label of device, and what is there if it is none.
func (z *ZFS) load(device string) (*zpool, []byte, error) {
	f, err := z.rig.Host.Files.Open(z.resolve(device))
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	head := make([]byte, 4096)
	n, err := f.Read(head)
	if err != nil {
		return nil, nil, err
	}
	label, ok := bytes.CutPrefix(head[:n], []byte(zfsLabel))
	if !ok {
		return nil, bytes.TrimRight(head[:n], "\x00"), nil
	}
	p := &zpool{device: device}
	if err := json.NewDecoder(bytes.NewReader(label)).Decode(p); err != nil {
		return nil, nil, err
	}
	return p, nil, nil
}

func (z *ZFS) save(p *zpool) error {
	f, err := z.rig.Host.Files.OpenDevice(z.resolve(p.device))
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	_, err = f.Write(append([]byte(zfsLabel), append(b, '\n')...))
	return err
}

// resolve follows the links below /dev/disk, which are relative.
func (z *ZFS) resolve(device string) string {
	if target, err := z.rig.Host.Files.Readlink(device); err == nil {
		return path.Join(path.Dir(device), target)
	}
	return device
}

func (z *ZFS) zpool(_ context.Context, c sys.Cmd) ([]byte, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if !z.rig.Host.Files.Exists("/sys/module/zfs") {
		return nil, &sys.ExecError{Name: "zpool", Code: 1, Stderr: "The ZFS modules are not loaded."}
	}
	switch args := c.Args[1:]; c.Args[0] {
	case "create":
		return nil, z.create(args)
	case "import":
		return z.importPool(args)
	case "list":
		return z.listPools()
	case "status":
		return z.status()
	}
	return nil, &sys.ExecError{Name: "zpool", Code: 2, Stderr: "unrecognized command '" + c.Args[0] + "'"}
}

func (z *ZFS) create(args []string) error {
	p := &zpool{Name: args[len(args)-2], device: args[len(args)-1]}
	force := false
	for _, a := range args {
		force = force || a == "-f"
		if l, ok := strings.CutPrefix(a, "keylocation=file://"); ok {
			p.Location = l
		}
	}
	old, data, err := z.load(p.device)
	if err != nil {
		return err
	}
	if (old != nil || len(data) > 0) && !force {
		return &sys.ExecError{Name: "zpool", Code: 1, Stderr: p.device + " is in use"}
	}
	digest, err := z.digest(p.Location)
	if err != nil {
		return err
	}
	p.Digest, p.unlocked = digest, true
	if err := z.save(p); err != nil {
		return err
	}
	return z.attach(p)
}

// digest stands for using the key: of the right size, and always the same one.
func (z *ZFS) digest(location string) (string, error) {
	key, err := z.rig.Host.Files.ReadFile(location)
	if err != nil || len(key) != 32 {
		return "", &sys.ExecError{Name: "zfs", Code: 255, Stderr: "Key load error: Failed to open key material file"}
	}
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:]), nil
}

func (z *ZFS) attach(p *zpool) error {
	z.imported[p.Name] = p
	return z.rig.Host.Files.MkdirAll("/proc/spl/kstat/zfs/"+p.Name, 0o755)
}

// importPool models `import -d DEV` and `import -N -d DEV NAME`.
func (z *ZFS) importPool(args []string) ([]byte, error) {
	var device, name string
	for i, a := range args {
		switch {
		case a == "-d":
			device = args[i+1]
		case a != "-N" && a != device:
			name = a
		}
	}
	p, _, err := z.load(device)
	if err != nil {
		return nil, err
	}
	found := p != nil && !p.Torn && z.imported[p.Name] == nil
	switch {
	case name == "" && !found:
		return nil, &sys.ExecError{Name: "zpool", Code: 1, Stderr: "no pools available to import"}
	case name == "":
		return fmt.Appendf(nil, "   pool: %s\n     id: 1\n  state: ONLINE\n action: The pool can be imported using its name or numeric identifier.\n config:\n\n\t%s  ONLINE\n", p.Name, p.Name), nil
	case !found || p.Name != name:
		return nil, &sys.ExecError{Name: "zpool", Code: 1, Stderr: fmt.Sprintf("cannot import '%s': no such pool available", name)}
	}
	return nil, z.attach(p)
}

// object is how the tools print JSON; the numbers are those of --json-int.
type object = map[string]any

func property(value any) object {
	return object{"value": value, "source": object{"type": "NONE", "data": "-"}}
}

func version(command string) object {
	return object{"command": command, "vers_major": 0, "vers_minor": 1}
}

func (z *ZFS) listPools() ([]byte, error) {
	if len(z.imported) == 0 {
		return []byte("no pools available\n"), nil
	}
	pools := object{}
	for name := range z.imported {
		pools[name] = object{
			"name": name, "type": "POOL", "state": "ONLINE", "pool_guid": uint64(17068583395379267683), "txg": 4, "spa_version": 5000, "zpl_version": 5,
			"properties": object{"size": property(58 << 30), "allocated": property(1 << 20), "free": property(57 << 30), "expandsize": property("-"), "health": property("ONLINE")},
		}
	}
	return json.Marshal(object{"output_version": version("zpool list"), "pools": pools})
}

func (z *ZFS) status() ([]byte, error) {
	pools := object{}
	for name, p := range z.imported {
		disk := object{"name": path.Base(p.device), "vdev_type": "disk", "guid": 2, "path": p.device, "class": "normal", "state": "ONLINE", "rep_dev_size": 58 << 30}
		root := object{"name": name, "vdev_type": "root", "guid": 1, "class": "normal", "state": "ONLINE", "vdevs": object{path.Base(p.device): disk}}
		pools[name] = object{"name": name, "state": "ONLINE", "pool_guid": 1, "error_count": 0, "vdevs": object{name: root}}
	}
	return json.Marshal(object{"output_version": version("zpool status"), "pools": pools})
}

func (z *ZFS) zfs(_ context.Context, c sys.Cmd) ([]byte, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	switch c.Args[0] {
	case "list":
		return z.listDatasets()
	case "load-key":
		if i := slices.Index(c.Args, "-L"); i > 0 && slices.Contains(c.Args, "-n") {
			return nil, z.tryKey(c.Args[len(c.Args)-1], strings.TrimPrefix(c.Args[i+1], "file://"))
		}
		return nil, z.loadKey(c.Args[1])
	case "destroy":
		return nil, z.destroy(c.Args[len(c.Args)-1])
	}
	return nil, &sys.ExecError{Name: "zfs", Code: 2, Stderr: "unrecognized command '" + c.Args[0] + "'"}
}

func (z *ZFS) loadKey(name string) error {
	p := z.imported[name]
	if p == nil {
		return z.tryKey(name, "")
	}
	if err := z.tryKey(name, p.Location); err != nil {
		return err
	}
	p.unlocked = true
	return nil
}

// tryKey models `load-key -n -L`: it says whether a key is the pool's.
func (z *ZFS) tryKey(name, location string) error {
	p := z.imported[name]
	if p == nil {
		return &sys.ExecError{Name: "zfs", Code: 1, Stderr: fmt.Sprintf("cannot open '%s': dataset does not exist", name)}
	}
	digest, err := z.digest(location)
	if err != nil {
		return err
	}
	if digest != p.Digest {
		return &sys.ExecError{Name: "zfs", Code: 255, Stderr: fmt.Sprintf("Key load error: Incorrect key provided for '%s'.", name)}
	}
	return nil
}

func (z *ZFS) listDatasets() ([]byte, error) {
	datasets := object{}
	for name, p := range z.imported {
		status := "unavailable"
		if p.unlocked {
			status = "available"
		}
		for _, n := range append([]string{name}, p.Datasets...) {
			datasets[n] = object{"name": n, "type": "FILESYSTEM", "pool": name, "createtxg": 1, "properties": object{
				"name": property(n), "used": property(1 << 20), "available": property(56 << 30), "quota": property(0),
				"encryption": property("aes-256-gcm"), "keystatus": property(status), "incusos:use": property("-"),
			}}
		}
	}
	return json.Marshal(object{"output_version": version("zfs list"), "datasets": datasets})
}
