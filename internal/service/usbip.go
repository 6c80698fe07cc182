package service

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/incusos/incusos/api"
)

// usbip attaches USB devices of other machines to a hub that the kernel pretends.
type usbip struct{ machine }

func newUSBIP(m machine) *usbip { return &usbip{m} }

func (s *usbip) steps(ctx context.Context, config api.ServiceUSBIPConfig, on bool) ([]step, error) {
	if !on {
		return s.detaches(nil), nil
	}
	up, err := s.raise(ctx, setup{key: "usbip", modules: []string{"vhci-hcd"}})
	if err != nil {
		return nil, err
	}
	steps := append(up, s.detaches(config.Targets)...)
	for _, t := range config.Targets {
		if slices.ContainsFunc(s.attached(), func(d api.ServiceUSBIPDevice) bool { return d.Address == t.Address && d.BusID == t.BusID }) {
			continue
		}
		st := doing("attach", t.BusID+" of "+t.Address, "", func(ctx context.Context) error {
			err := insist(ctx, func(ctx context.Context) error {
				_, err := s.run(ctx, "usbip", "attach", "-r", t.Address, "-b", t.BusID)
				return err
			})
			if err != nil {
				return fmt.Errorf("attaching %s of %s: %w", t.BusID, t.Address, err)
			}
			return nil
		})
		st.apart = true
		steps = append(steps, st)
	}
	return steps, nil
}

// detaches returns the steps that detach what is not wanted. All that is attached
// is ours: nobody else has a use for it.
func (s *usbip) detaches(wanted []api.ServiceUSBIPTarget) []step {
	var steps []step
	for _, d := range s.attached() {
		if slices.Contains(wanted, api.ServiceUSBIPTarget{Address: d.Address, BusID: d.BusID}) {
			continue
		}
		st := doing("detach", d.BusID+" of "+d.Address, "the device goes away", func(ctx context.Context) error {
			if _, err := s.run(ctx, "usbip", "detach", "-p", strconv.Itoa(d.Port)); err != nil {
				return fmt.Errorf("detaching %s of %s: %w", d.BusID, d.Address, err)
			}
			return nil
		})
		st.apart = true
		steps = append(steps, st)
	}
	return steps
}

// attached returns what the hub holds. The kernel knows which ports are in use,
// and usbip has noted what was attached to them; notes may be of before.
func (s *usbip) attached() []api.ServiceUSBIPDevice {
	var all []api.ServiceUSBIPDevice
	for _, port := range parseHub(s.attribute("/sys/devices/platform/vhci_hcd.0/status")) {
		d, ok := parseNote(s.attribute("/run/vhci_hcd/port" + strconv.Itoa(port)))
		if ok {
			d.Port = port
			all = append(all, d)
		}
	}
	return all
}

// parseHub returns the ports in use (drivers/usb/usbip/vhci_sysfs.c): lines "hub
// port state speed ...", with state 6 for a device that works.
func parseHub(status string) []int {
	var used []int
	for line := range strings.Lines(status) {
		f := strings.Fields(line)
		if len(f) < 3 {
			continue
		}
		port, err := strconv.Atoi(f[1])
		state, stateErr := strconv.Atoi(f[2])
		if err == nil && stateErr == nil && port >= 0 && state == 6 {
			used = append(used, port)
		}
	}
	return used
}

// parseNote reads "HOST PORT BUSID".
func parseNote(note string) (api.ServiceUSBIPDevice, bool) {
	f := strings.Fields(note)
	if len(f) != 3 {
		return api.ServiceUSBIPDevice{}, false
	}
	return api.ServiceUSBIPDevice{Address: f[0], BusID: f[2]}, true
}

func (s *usbip) check(api.ServiceUSBIPConfig) error { return nil }

func (s *usbip) refresh(context.Context, api.ServiceUSBIPConfig) {}

func (s *usbip) document(config api.ServiceUSBIPConfig, state api.ServiceState) any {
	return api.ServiceUSBIP{Config: config, State: api.ServiceUSBIPState{ServiceState: state, Attached: s.attached()}}
}
