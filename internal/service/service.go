// Package service brings the services of a machine to their documents: disks and
// devices that are reached over the network, and networks that span machines.
//
// Each service is one file behind one small interface:
//
//	iscsi.go nvme.go multipath.go lvm.go usbip.go   disks and devices
//	ovn.go ceph.go                                  clients of a cluster
//	absent.go                                       what Debian has no package of
//
// Their programs come with applications: extension images that image/ is the place
// of and internal/apps merges. Here is only known which one a service needs.
//
// What they have in common is here:
//
//	service.go   the interface, and all services by their names
//	instance.go  one service with its document
//	step.go      a plan is a list of steps, and applying it takes them
//	setup.go     modules, files and units as steps
//	ledger.go    what a service has done since the machine started
//	machine.go   looking at the machine
//
// Most of a service's state is in files of sysfs, which are read when somebody
// asks. What only a program can tell is asked for after each reconciliation and
// kept with the time: incusd waits for GET /1.0/services/NAME while it starts,
// so that nothing there may wait.
//
// Packages change and store, below, try and save documents; package daemon has
// the services reconciled, after the network and before applications. Disks as
// such belong to internal/storage beside this one.
package service

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/change"
	"github.com/incusos/incusos/internal/sys"
)

// A config is the configuration of a service.
type config interface {
	On() bool
	Validate() error
}

// A service is one kind of service. C is its configuration.
type service[C config] interface {
	// steps returns what is to be done until config is in force, or until
	// nothing of it is with on false. It changes nothing.
	steps(ctx context.Context, config C, on bool) ([]step, error)
	// check refuses what this machine cannot be brought to, before it is tried.
	check(config C) error
	// refresh asks programs for the part of the state that no file has.
	refresh(ctx context.Context, config C)
	// document returns what clients see. It reads files and runs nothing.
	document(config C, state api.ServiceState) any
}

// Options are what services need to know that is not theirs.
type Options struct {
	Gate *change.Gate // of the machine
	// Cluster returns this machine's addresses on the network of its cluster,
	// in CIDR notation.
	Cluster func() []string
}

// Services are all services of a machine.
type Services struct{ all []member }

// A member is a service with its document, whatever its configuration is.
type member interface {
	label() string
	listed() bool
	on() bool
	extension() string
	get() (any, error)
	current() (any, error)
	empty() any
	plan(ctx context.Context, config any) (api.Plan, error)
	try(ctx context.Context, config any, within time.Duration) error
	Confirm(ctx context.Context) error
	reset(ctx context.Context) error
	reconcile(ctx context.Context) error
	seed(config any) error
}

// storage is the application that has the programs of most services.
const storage = "storage"

// New returns the services of host, in the order they start in.
func New(host sys.Host, o Options) *Services {
	m := func(name string) machine { return machine{host, name} }
	return &Services{all: []member{
		newInstance(host, o.Gate, kind{name: "ceph", app: "incus-ceph", programs: []string{"rbd"}, optional: true}, newCeph(m("ceph"))),
		newInstance(host, o.Gate, kind{name: "iscsi", app: storage, programs: []string{"iscsiadm", "iscsid"}}, newISCSI(m("iscsi"))),
		newInstance(host, o.Gate, kind{name: "linstor", absent: "LINSTOR satellite", optional: true}, newAbsent[api.ServiceLinstorConfig](linstorDocument)),
		newInstance(host, o.Gate, kind{name: "netbird", absent: "NetBird"}, newAbsent[api.ServiceNetbirdConfig](netbirdDocument)),
		newInstance(host, o.Gate, kind{name: "nvme", app: storage, programs: []string{"nvme"}}, newNVME(m("nvme"))),
		newInstance(host, o.Gate, kind{name: "multipath", app: storage, programs: []string{"multipath", "multipathd"}}, newMultipath(m("multipath"))),
		newInstance(host, o.Gate, kind{name: "lvm", app: storage, programs: []string{"vgs", "lvmlockd", "sanlock"}}, newLVM(m("lvm"))),
		newInstance(host, o.Gate, kind{name: "ovn", app: "ovn", programs: []string{"ovs-vsctl", "ovn-controller"}}, newOVN(m("ovn"), o.Cluster)),
		newInstance(host, o.Gate, kind{name: "tailscale", absent: "Tailscale"}, newAbsent[api.ServiceTailscaleConfig](tailscaleDocument)),
		newInstance(host, o.Gate, kind{name: "usbip", app: storage, programs: []string{"usbip"}}, newUSBIP(m("usbip"))),
	}}
}

// Name is the area's name in health reports.
func (s *Services) Name() string { return "services" }

// Reconcile brings each service to its document. One that fails does not keep
// the others from it. Those that are off come first and in reverse, so that one
// that others rest on goes last.
func (s *Services) Reconcile(ctx context.Context) error {
	var order []member
	for _, m := range slices.Backward(s.all) {
		if !m.on() {
			order = append(order, m)
		}
	}
	for _, m := range s.all {
		if m.on() {
			order = append(order, m)
		}
	}
	var errs []error
	for _, m := range order {
		if err := m.reconcile(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.label(), err))
		}
	}
	return together(errs)
}

// Seed saves what a seed asks for as the documents of those services that have
// none yet. Configurations are by the names of services.
func (s *Services) Seed(configs map[string]any) error {
	var errs []error
	for _, m := range s.all {
		if c, ok := configs[m.label()]; ok {
			errs = append(errs, m.seed(c))
		}
	}
	return errors.Join(errs...)
}

// Applications returns the applications that have the programs of services which
// configurations, by the names of services, enable.
func (s *Services) Applications(configs map[string]any) []string {
	var names []string
	for _, m := range s.all {
		c, ok := configs[m.label()].(interface{ On() bool })
		if ok && c.On() && m.extension() != "" && !slices.Contains(names, m.extension()) {
			names = append(names, m.extension())
		}
	}
	return names
}

// Users returns the services that are enabled and need an application, in words.
func (s *Services) Users(application string) []string {
	var users []string
	for _, m := range s.all {
		if m.extension() == application && m.on() {
			users = append(users, "the service "+m.label())
		}
	}
	return users
}

func (s *Services) find(name string) (member, error) {
	for _, m := range s.all {
		if m.label() == name {
			return m, nil
		}
	}
	return nil, api.Errorf(api.NotFound, "service %q: not found; known are %s", name, strings.Join(api.ServiceNames(), ", "))
}

// Names implements rest.Family, as do all below. It lists the services that make
// sense on this machine; the others answer all the same, as not enabled.
func (s *Services) Names(context.Context) ([]string, error) {
	var names []string
	for _, m := range s.all {
		if m.listed() {
			names = append(names, m.label())
		}
	}
	return names, nil
}

// Get returns the document of a service.
func (s *Services) Get(_ context.Context, name string) (any, error) {
	m, err := s.find(name)
	if err != nil {
		return nil, err
	}
	return m.get()
}

// Config returns the configuration in force.
func (s *Services) Config(name string) (any, error) {
	m, err := s.find(name)
	if err != nil {
		return nil, err
	}
	return m.current()
}

// New returns a pointer to an empty configuration.
func (s *Services) New(name string) (any, error) {
	m, err := s.find(name)
	if err != nil {
		return nil, err
	}
	return m.empty(), nil
}

// Plan says what a change would do.
func (s *Services) Plan(ctx context.Context, name string, config any) (api.Plan, error) {
	m, err := s.find(name)
	if err != nil {
		return api.Plan{}, err
	}
	return m.plan(ctx, config)
}

// Try changes a service.
func (s *Services) Try(ctx context.Context, name string, config any, within time.Duration) error {
	m, err := s.find(name)
	if err != nil {
		return err
	}
	return m.try(ctx, config, within)
}

// Confirm keeps a change that is on trial.
func (s *Services) Confirm(ctx context.Context, name string) error {
	m, err := s.find(name)
	if err != nil {
		return err
	}
	return m.Confirm(ctx)
}

// Reset stops a service, forgets what it keeps, and starts it again.
func (s *Services) Reset(ctx context.Context, name string) error {
	m, err := s.find(name)
	if err != nil {
		return err
	}
	return m.reset(ctx)
}
