// Package host is the machine as a whole: what it is called, what time it is
// there, what is set of its kernel, where its log goes, and turning it off.
//
//	host.go     name, environment, power
//	zone.go     the time zone
//	kernel.go   settings of the kernel, a part in each of sysctl.go, modules.go,
//	            zram.go, pci.go and consoles.go
//	logging.go  what is kept of the log, and who gets a copy
//	steps.go    what both are made of: steps, and values that can be put back
//	delivery.go files that somebody has to be told of
//
// The name is the operator's, or one made up from the hardware so that two
// machines on a shelf can be told apart. It is written to /etc/hostname, where
// systemd reads it, and given to the kernel, so that no reboot is needed.
// Everything in the environment is read when asked for and kept nowhere.
//
// Addresses belong to package network beside this one, updates to package
// update.
package host

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"strings"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

const (
	osRelease  = "/usr/lib/os-release"
	devBuild   = "/usr/lib/incus-os/dev-build" // images with a root shell carry it
	machineID  = "/etc/machine-id"
	product    = "/sys/class/dmi/id/product_uuid"
	nameFile   = "/etc/hostname"
	kernelName = "/proc/sys/kernel/hostname"
	uptime     = "/proc/uptime"
)

// A Host is the machine as a whole.
type Host struct {
	host sys.Host
	want func() string
	zone func() string
}

// New returns the area for host. Want and zone return the name and the time zone
// that the operator chose, "" for none.
func New(host sys.Host, want, zone func() string) *Host { return &Host{host, want, zone} }

// Name implements daemon.Area.
func (*Host) Name() string { return "host" }

// Reconcile gives the machine the name and the time zone that are wanted.
func (h *Host) Reconcile(context.Context) error { return h.Apply(h.want(), h.zone()) }

// Apply gives the machine a name and a time zone. It writes nothing that is
// already so, and after an error it can be called again.
func (h *Host) Apply(name, zone string) error {
	return errors.Join(h.setName(name), h.setZone(zone))
}

// Plan says what it takes to give the machine this name and this time zone.
func (h *Host) Plan(name, zone string) (p api.Plan) {
	if want := h.called(name); !h.holds(nameFile, []byte(want+"\n")) {
		p.Do("name", "the machine "+want)
	}
	if zone := cmp.Or(zone, utc); !h.inZone(zone) {
		p.Do("set", "the clock to the time in "+zone)
	}
	return p
}

func (h *Host) setName(wanted string) error {
	name := []byte(h.called(wanted) + "\n")
	if !h.holds(nameFile, name) {
		if err := h.host.Files.WriteFile(nameFile, name, 0o644); err != nil {
			return fmt.Errorf("saving the host name: %w", err)
		}
	}
	if !h.host.Files.Exists(kernelName) || h.holds(kernelName, name) {
		return nil // a pretend machine has no kernel
	}
	if err := h.host.Files.PutFile(kernelName, name); err != nil {
		return fmt.Errorf("setting the host name: %w", err)
	}
	return nil
}

func (h *Host) holds(file string, content []byte) bool {
	b, err := h.host.Files.ReadFile(file)
	return err == nil && bytes.Equal(b, content)
}

// Reboot asks for a restart and does not wait for it.
func (h *Host) Reboot(ctx context.Context) error {
	slog.InfoContext(ctx, "Restarting")
	return h.host.Units.Queue(ctx, "reboot.target")
}

// Poweroff asks for the machine to be turned off and does not wait for it.
func (h *Host) Poweroff(ctx context.Context) error {
	slog.InfoContext(ctx, "Turning off")
	return h.host.Units.Queue(ctx, "poweroff.target")
}

// Suspend asks for a suspension to memory and does not wait for it.
func (h *Host) Suspend(ctx context.Context) error {
	slog.InfoContext(ctx, "Suspending")
	return h.host.Units.Queue(ctx, "suspend.target")
}

// Environment describes the running system. Whether it is ready, and which
// version runs next, is for others to say.
func (h *Host) Environment(context.Context) (api.Environment, error) {
	release, err := h.release()
	if err != nil {
		return api.Environment{}, err
	}
	up, err := h.uptime()
	if err != nil {
		return api.Environment{}, err
	}
	env := api.Environment{
		Hostname:      h.hostname(),
		MachineID:     h.line(machineID),
		Mode:          api.ModeRelease,
		OSName:        release["NAME"],
		OSVersion:     release["IMAGE_VERSION"],
		OSVersionNext: release["IMAGE_VERSION"],
		Uptime:        up,
	}
	if h.host.Files.Exists(devBuild) {
		env.Mode = api.ModeDev
	}
	return env, nil
}

// hostname returns what the machine is to be called.
func (h *Host) hostname() string { return h.called(h.want()) }

// called returns name, or one made up if there is none.
func (h *Host) called(name string) string {
	return cmp.Or(name, strings.ToLower(h.line(product)), h.line(machineID), "incusos")
}

// line returns the content of a file of one line, "" if it cannot be read.
func (h *Host) line(name string) string {
	b, err := h.host.Files.ReadFile(name)
	if err != nil {
		return "" // not every machine has every file
	}
	return strings.TrimSpace(string(b))
}

// release returns the fields of os-release(5).
func (h *Host) release() (map[string]string, error) {
	b, err := h.host.Files.ReadFile(osRelease)
	if err != nil {
		return nil, fmt.Errorf("reading which release this is: %w", err)
	}
	fields := make(map[string]string)
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		fields[key] = strings.Trim(value, `"'`)
	}
	return fields, nil
}

// uptime returns the seconds since boot (proc_uptime(5): "60.12 100.34").
func (h *Host) uptime() (int64, error) {
	b, err := h.host.Files.ReadFile(uptime)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("reading the uptime: %w", err)
	}
	whole, _, _ := strings.Cut(string(b), ".")
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("reading the uptime: %w", err)
	}
	return n, nil
}
