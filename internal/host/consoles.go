package host

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

// consoles looks after the serial ports that show how the machine is: package
// console writes to them, and here they get their speed.
func (k *Kernel) consoles(cfg api.SystemKernelConfig) ([]step, error) {
	was, err := originals(k.host.Files)
	if err != nil {
		return nil, err
	}
	var steps []step
	var devices []string
	speeds := make(map[string]int) // by device; 0 is what it was
	for device := range was {
		if strings.HasPrefix(device, "/dev/") && k.host.Files.Exists(device) {
			speeds[device] = 0
		}
	}
	for i, c := range cfg.Console {
		if !k.host.Files.Exists(c.Device) {
			return nil, api.Fieldf(fmt.Sprintf("console[%d].device", i), "%q is not there; this machine has %s", c.Device, k.ports())
		}
		devices = append(devices, c.Device)
		speeds[c.Device] = c.BaudRate
	}
	for _, device := range sortedKeys(speeds) {
		s, err := k.speed(device, speeds[device], was[device])
		if err != nil {
			return nil, err
		}
		steps = append(steps, s...)
	}
	return append(steps, k.showOn(devices)...), nil
}

// ports names the serial ports there are, for people.
func (k *Kernel) ports() string {
	entries, err := k.host.Files.ReadDir("/dev")
	if err != nil {
		return "none"
	}
	var found []string
	for _, e := range entries {
		for _, kind := range []string{"ttyS", "ttyAMA", "ttyUSB", "ttyACM", "hvc"} {
			if rest, ok := strings.CutPrefix(e.Name(), kind); ok && rest != "" {
				found = append(found, "/dev/"+e.Name())
			}
		}
	}
	if len(found) == 0 {
		return "none"
	}
	return strings.Join(found, ", ")
}

// speed returns the steps that give a port its speed, or the one it had before.
// What is no terminal has no speed.
func (k *Kernel) speed(device string, want int, before string) ([]step, error) {
	now, err := sys.Speed(k.host.Files, device)
	if err != nil {
		return nil, err
	}
	if want == 0 {
		want, _ = strconv.Atoi(before) // 0: it was never changed
	}
	if now == 0 || want == 0 || now == want {
		return nil, nil
	}
	return []step{newStep("set", fmt.Sprintf("the speed of %s to %d", device, want), func(context.Context) error {
		if err := remember(k.host.Files, device, strconv.Itoa(now)); err != nil {
			return err
		}
		return sys.SetSpeed(k.host.Files, device, want)
	}).withRisk("a terminal on the other end must have the same")}, nil
}

// showOn returns the step after which these ports, and no others that were
// asked for before, show how the machine is.
func (k *Kernel) showOn(devices []string) []step {
	k.mu.Lock()
	defer k.mu.Unlock()
	if slices.Equal(k.shown, devices) {
		return nil
	}
	where := "only where the kernel does"
	if len(devices) > 0 {
		where = "on " + strings.Join(devices, ", ")
	}
	return []step{newStep("show", "how the machine is "+where, func(context.Context) error {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.show(devices)
		k.shown = devices
		return nil
	})}
}
