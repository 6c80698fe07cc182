package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

// modprobeFile is read whenever a module is loaded (modprobe.d(5)), which mostly
// happens before this program starts; so it outlives a boot. Nothing else below
// /etc is this area's.
const modprobeFile = "/etc/modprobe.d/20-incus-os.conf"

const (
	modprobeStamp = "/run/incus-os/kernel.modprobe"

	moduleDir = "/sys/module/"
	arcMax    = moduleDir + "zfs/parameters/zfs_arc_max"
)

// modules looks after what is decided when a module is loaded, and unloads what
// should not have been.
func (k *Kernel) modules(cfg api.SystemKernelConfig) ([]step, error) {
	var used []string
	var unload []step
	for i, m := range cfg.BlacklistModules {
		if dir := moduleDir + moduleName(m); k.host.Files.Exists(dir) && !k.host.Files.Exists(dir+"/initstate") {
			return nil, api.Fieldf(fmt.Sprintf("blacklist_modules[%d]", i), "%q is part of this kernel and cannot be kept out; want a module", m)
		}
		switch loaded, inUse := k.loaded(m); {
		case inUse:
			used = append(used, m)
		case loaded:
			unload = append(unload, newStep("unload", "module "+m, k.run("rmmod", moduleName(m))))
		}
	}
	steps, err := k.modprobeSteps(cfg)
	if err != nil {
		return nil, err
	}
	if len(steps) > 0 && len(used) > 0 {
		steps[0] = steps[0].withRisk("in use until the next start: " + strings.Join(used, ", "))
	}
	return append(steps, unload...), nil
}

// modprobeSteps returns those that write modprobeFile, and have modules loaded
// that it kept out until now.
func (k *Kernel) modprobeSteps(cfg api.SystemKernelConfig) ([]step, error) {
	d := delivery{k.host.Files, modprobeFile, modprobeConfig(cfg), modprobeStamp}
	due, err := d.due()
	if err != nil || !due {
		return nil, err
	}
	told, err := d.told()
	if err != nil {
		return nil, err
	}
	before, err := k.blacklist()
	if err != nil {
		return nil, err
	}
	freed := missing(before, cfg.BlacklistModules)
	action := "write"
	if d.content == "" {
		action = "remove"
	}
	if len(freed) == 0 && told != unfinished {
		return []step{newStep(action, modprobeFile, func(context.Context) error { return inOrder(d.write, d.done) })}, nil
	}
	return []step{
		newStep(action, modprobeFile, func(context.Context) error { return inOrder(d.begin, d.write) }),
		// What a boot does for every device, now that another answer is possible.
		newStep("load", strings.TrimSpace("what drives a device and was kept out "+strings.Join(freed, ", ")), func(ctx context.Context) error {
			trigger := k.run("udevadm", "trigger", "--action=add", "--property-match=MODALIAS=*")
			if err := trigger(ctx); err != nil {
				return err
			}
			return d.done()
		}),
	}, nil
}

// run returns what runs a program and has no use for what it prints.
func (k *Kernel) run(name string, args ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := k.host.Exec.Run(ctx, sys.Command(name, args...))
		return err
	}
}

// missing returns the modules of before that are not in after.
func missing(before, after []string) []string {
	return slices.DeleteFunc(before, func(m string) bool {
		return slices.ContainsFunc(after, func(n string) bool { return moduleName(m) == moduleName(n) })
	})
}

// modprobeConfig is the content of modprobeFile, "" if there is nothing to say.
func modprobeConfig(cfg api.SystemKernelConfig) string {
	var b strings.Builder
	for _, m := range cfg.BlacklistModules {
		fmt.Fprintf(&b, "blacklist %s\n", m)
	}
	if bytes := arcBytes(cfg.ZFS); bytes != "" {
		fmt.Fprintf(&b, "options zfs zfs_arc_max=%s\n", bytes)
	}
	var ids []string
	if cfg.PCI != nil {
		for _, d := range cfg.PCI.Passthrough {
			if id := d.VendorID + ":" + d.ProductID; d.PCIAddress == "" && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	if len(ids) > 0 {
		fmt.Fprintf(&b, "options vfio-pci ids=%s\n", strings.Join(ids, ","))
	}
	return b.String()
}

// blacklist returns the modules that the file in place keeps out.
func (k *Kernel) blacklist() ([]string, error) {
	b, err := k.host.Files.ReadFile(modprobeFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading which modules are kept out: %w", err)
	}
	var modules []string
	for line := range strings.Lines(string(b)) {
		if m, ok := strings.CutPrefix(strings.TrimSpace(line), "blacklist "); ok {
			modules = append(modules, m)
		}
	}
	return modules, nil
}

// loaded reports whether a module is loaded, and whether something needs it:
// another module, a program, or a device that it drives. A driver of network
// cards counts no users, and yet nobody wants it to go while it drives one.
func (k *Kernel) loaded(module string) (loaded, inUse bool) {
	dir := moduleDir + moduleName(module)
	if !k.host.Files.Exists(dir + "/initstate") {
		return false, false
	}
	users, err := k.host.Files.ReadFile(dir + "/refcnt")
	if err == nil && fields(users) != "0" || k.hasEntries(dir+"/holders", "") {
		return true, true
	}
	drivers, err := k.host.Files.ReadDir(dir + "/drivers")
	if err != nil {
		return true, false // it has none
	}
	for _, d := range drivers {
		if k.drives(path.Join(dir, "drivers", d.Name())) {
			return true, true
		}
	}
	return true, false
}

// drives reports whether a driver has a device: sysfs lists them as symlinks
// beside "module".
func (k *Kernel) drives(driver string) bool { return k.hasEntries(driver, "module") }

// hasEntries reports whether dir has an entry that is a symlink, but for one.
func (k *Kernel) hasEntries(dir, but string) bool {
	entries, err := k.host.Files.ReadDir(dir)
	return err == nil && slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		return e.Type() == fs.ModeSymlink && e.Name() != but
	})
}

// arc looks after how much ZFS caches. A module that is loaded later reads it
// from modprobeFile.
func (k *Kernel) arc(cfg api.SystemKernelConfig) ([]step, error) {
	want := arcBytes(cfg.ZFS)
	if want != "" {
		if err := k.arcFits(want, cfg.ZFS.ARCMaxSize); err != nil {
			return nil, err
		}
	}
	if !k.host.Files.Exists(arcMax) {
		return nil, nil
	}
	s := setting{name: "zfs_arc_max", file: arcMax, value: want}
	if want == "" {
		// What was before would be what modprobeFile said at the start.
		s.value, s.risk = "0", "the limit stays what it was until the next start"
	}
	return s.change(k.host.Files, nil)
}

func (k *Kernel) arcFits(bytes, size string) error {
	total, err := k.memory("MemTotal")
	if err != nil {
		return err
	}
	if n, err := strconv.ParseUint(bytes, 10, 64); err != nil || n >= total {
		return api.Fieldf("zfs.arc_max_size", "%q is all the memory there is or more; want less than %d MiB", size, total>>20)
	}
	return nil
}

// arcBytes returns the size that ZFS may cache as ZFS takes it, "" for its own
// choice.
func arcBytes(z *api.KernelZFS) string {
	if z == nil || z.ARCMaxSize == "" {
		return ""
	}
	n, err := api.ParseSize(z.ARCMaxSize)
	if err != nil {
		return "" // refused by Validate
	}
	return strconv.FormatUint(n, 10)
}

const cpufreq = "/sys/devices/system/cpu/cpufreq"

// governor looks after how processors choose their speed. A policy is one for
// all the processors that change it together (kernel documentation,
// admin-guide/pm/cpufreq).
func (k *Kernel) governor(cfg api.SystemKernelConfig) ([]step, error) {
	const field = "cpu.scaling_governor"
	want := ""
	if cfg.CPU != nil {
		want = cfg.CPU.ScalingGovernor
	}
	policies, err := k.host.Files.ReadDir(cpufreq)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing processors: %w", err)
	}
	if len(policies) == 0 && want != "" {
		return nil, api.Fieldf(field, "%q cannot be set, since the processors of this machine do not let the system choose their speed; leave it out", want)
	}
	was, err := originals(k.host.Files)
	if err != nil {
		return nil, err
	}
	var steps []step
	for _, p := range policies {
		dir := path.Join(cpufreq, p.Name())
		b, err := k.host.Files.ReadFile(dir + "/scaling_available_governors")
		if err != nil {
			continue // no policy
		}
		if available := strings.Fields(string(b)); want != "" && !slices.Contains(available, want) {
			return nil, api.Fieldf(field, "%q is not there; this machine has %s", want, strings.Join(available, ", "))
		}
		s := setting{name: "the governor of " + p.Name(), file: dir + "/scaling_governor", value: want}
		change, err := s.change(k.host.Files, was)
		if err != nil {
			return nil, err
		}
		steps = append(steps, change...)
	}
	return steps, nil
}
