package vm

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/incusos/incusos/internal/sys"
)

// Options say what a machine is made of. The zero value of each but Tools is
// a sensible one.
type Options struct {
	Tools  string     // tree of Debian with qemu-system, ovmf and swtpm
	Arch   string     // as Go says it; "" is this machine's
	Cache  string     // directory for what was learned about this host; "" is the user's
	Memory int        // MiB
	CPUs   int        // virtual processors
	Disks  []Disk     // the first one is booted
	Port   int        // on 127.0.0.1, leads to GuestPort; 0 is any free one
	Exec   sys.Runner // nil is this machine's
}

// A Disk is a file NAME.raw in the directory of a machine.
type Disk struct {
	Name string // also its serial number, as in /dev/disk/by-id/virtio-NAME
	Size int64  // bytes, none of them taken until written
}

// GuestPort is the port of the guest that Options.Port leads to: Incus.
const GuestPort = 8443

func (o Options) withDefaults() (Options, error) {
	o.Memory = cmp.Or(o.Memory, 3072)
	o.CPUs = cmp.Or(o.CPUs, 2)
	if len(o.Disks) == 0 {
		o.Disks = []Disk{{Name: "disk", Size: 64 << 30}}
	}
	for _, d := range o.Disks {
		// The serial number of a virtio disk has 20 characters at most.
		if !regexp.MustCompile(`^[a-zA-Z0-9_-]{1,20}$`).MatchString(d.Name) {
			return o, fmt.Errorf("disk name %q is not usable as a serial number; want 1 to 20 letters, digits, - or _", d.Name)
		}
	}
	if o.Exec == nil {
		o.Exec = sys.Real().Exec
	}
	if o.Cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return o, fmt.Errorf("finding the cache directory: %w", err)
		}
		o.Cache = filepath.Join(dir, "incusos")
	}
	return o, nil
}

// A Machine is a computer that is switched off. All that outlives a power cut
// is in its directory.
type Machine struct {
	dir   string
	opt   Options
	tools tools
}

// ErrExists reports that a directory already holds a machine.
var ErrExists = errors.New("there is a machine already")

// Create makes a machine in dir with empty disks, a new TPM and a firmware in
// setup mode. A machine that is there already is an ErrExists.
func Create(dir string, o Options) (*Machine, error) {
	m, err := open(dir, o)
	if err != nil {
		return nil, fmt.Errorf("making a machine in %s: %w", dir, err)
	}
	if _, err := os.Lstat(m.path(varsFile)); err == nil {
		return nil, fmt.Errorf("making a machine in %s: %w", dir, ErrExists)
	}
	if err := m.populate(); err != nil {
		return nil, fmt.Errorf("making a machine in %s: %w", dir, err)
	}
	return m, nil
}

// Open continues the machine that Create made in dir.
func Open(dir string, o Options) (*Machine, error) {
	m, err := open(dir, o)
	if err != nil {
		return nil, fmt.Errorf("opening the machine in %s: %w", dir, err)
	}
	for _, d := range m.opt.Disks {
		if _, err := os.Stat(m.Disk(d.Name)); err != nil {
			return nil, fmt.Errorf("opening the machine in %s: %w", dir, err)
		}
	}
	return m, nil
}

func open(dir string, o Options) (*Machine, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	a, err := archOf(o.Arch)
	if err != nil {
		return nil, err
	}
	t, err := openTools(o.Tools, a)
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	return &Machine{dir, o, t}, nil
}

const (
	varsFile = "vars.fd"
	tpmDir   = "tpm"
)

// populate writes the variables last: they stand for a complete machine.
func (m *Machine) populate() error {
	if err := os.MkdirAll(m.path(tpmDir), 0o700); err != nil {
		return err
	}
	for _, d := range m.opt.Disks {
		if err := m.makeDisk(d); err != nil {
			return err
		}
	}
	return copyFile(m.tools.path(m.tools.arch.firmware.vars), m.path(varsFile))
}

func (m *Machine) makeDisk(d Disk) error {
	f, err := os.OpenFile(m.Disk(d.Name), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(d.Size), f.Close())
}

// AddDisk puts an empty disk into a machine that is switched off.
func (m *Machine) AddDisk(d Disk) error {
	o := m.opt
	o.Disks = append(slices.Clone(o.Disks), d)
	o, err := o.withDefaults()
	if err == nil {
		err = m.makeDisk(d)
	}
	if err != nil {
		return fmt.Errorf("adding a disk to the machine in %s: %w", m.dir, err)
	}
	m.opt = o
	return nil
}

// Dir is the directory of the machine.
func (m *Machine) Dir() string { return m.dir }

// Disk returns the path of a disk's content.
func (m *Machine) Disk(name string) string { return m.path(name + ".raw") }

func (m *Machine) path(name string) string { return filepath.Join(m.dir, name) }

// ReplaceTPM puts a new TPM in the place of the old one, whose keys are lost.
func (m *Machine) ReplaceTPM() error {
	if err := os.RemoveAll(m.path(tpmDir)); err != nil {
		return fmt.Errorf("replacing the TPM: %w", err)
	}
	return os.Mkdir(m.path(tpmDir), 0o700)
}

// CopyTPM puts a copy of another machine's TPM in the place of this one's. Both are
// switched off.
func (m *Machine) CopyTPM(from *Machine) error {
	if err := m.ReplaceTPM(); err != nil {
		return err
	}
	if err := os.CopyFS(m.path(tpmDir), os.DirFS(from.path(tpmDir))); err != nil {
		return fmt.Errorf("copying the TPM of %s: %w", from.dir, err)
	}
	return nil
}

// Clone copies a machine that is switched off, TPM included, to a new
// directory. Disks share their blocks where the file system can.
func (m *Machine) Clone(dir string) (*Machine, error) {
	c, err := open(dir, m.opt)
	if err != nil {
		return nil, fmt.Errorf("cloning the machine in %s: %w", m.dir, err)
	}
	if err := m.copyTo(c); err != nil {
		return nil, fmt.Errorf("cloning the machine in %s: %w", m.dir, err)
	}
	return c, nil
}

func (m *Machine) copyTo(c *Machine) error {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return err
	}
	if err := os.CopyFS(c.path(tpmDir), os.DirFS(m.path(tpmDir))); err != nil {
		return err
	}
	for _, d := range m.opt.Disks {
		if err := copyFile(m.Disk(d.Name), c.Disk(d.Name)); err != nil {
			return err
		}
	}
	return copyFile(m.path(varsFile), c.path(varsFile))
}

// Remove throws the machine in dir away; logs and foreign files stay.
func Remove(dir string) error {
	disks, err := filepath.Glob(filepath.Join(dir, "*.raw"))
	if err != nil {
		return err
	}
	names := append(disks, filepath.Join(dir, varsFile))
	for _, name := range names {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing the machine in %s: %w", dir, err)
		}
	}
	return os.RemoveAll(filepath.Join(dir, tpmDir))
}
