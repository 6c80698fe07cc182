package service

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/incusos/incusos/api"
)

// nvme connects to subsystems by NVMe over Fabrics. Controllers are read from
// sysfs. Those in the ledger are ours.
type nvme struct{ machine }

func newNVME(m machine) *nvme { return &nvme{m} }

const (
	hostNQNFile = "/etc/nvme/hostnqn"
	hostIDFile  = "/etc/nvme/hostid"
	pathKey     = "path "      // before a target in the ledger: connected to by us
	discoverKey = "discovered" // in the ledger: what was asked for lists of subsystems
)

// setup is what nvme-cli needs. There is no unit: the kernel keeps connections.
func (s *nvme) setup(config api.ServiceNVMEConfig) (setup, error) {
	set := setup{key: "nvme", files: make(map[string]file), modules: []string{"nvme-fabrics"}}
	for _, t := range config.Targets {
		if module := "nvme-" + t.Transport; !slices.Contains(set.modules, module) {
			set.modules = append(set.modules, module)
		}
	}
	id, err := s.identity("nvme")
	if err != nil {
		return setup{}, err
	}
	uuid := asUUID(id)
	if !s.own(hostNQNFile, "nqn.") {
		set.files[hostNQNFile] = file{content: "nqn.2014-08.org.nvmexpress:uuid:" + uuid + "\n", perm: 0o644}
	}
	if !s.own(hostIDFile, "-") {
		set.files[hostIDFile] = file{content: uuid + "\n", perm: 0o644}
	}
	return set, nil
}

// asUUID makes a UUID of version 8 (RFC 9562, section 5.8) from hexadecimal digits.
func asUUID(digits string) string {
	return fmt.Sprintf("%s-%s-8%s-a%s-%s", digits[:8], digits[8:12], digits[13:16], digits[17:20], digits[20:32])
}

func (s *nvme) steps(ctx context.Context, config api.ServiceNVMEConfig, on bool) ([]step, error) {
	if !on {
		return s.disconnectAll(), nil
	}
	set, err := s.setup(config)
	if err != nil {
		return nil, err
	}
	up, err := s.raise(ctx, set)
	if err != nil {
		return nil, err
	}
	down := s.disconnects(config)
	return slices.Concat(up, down, s.connects(config, len(down) > 0)), nil
}

// disconnectAll closes all connections if there is one of ours: what was found by
// discovery has no entry of its own.
func (s *nvme) disconnectAll() []step {
	l := s.ledger()
	all := l.entries()
	if len(all) == 0 {
		return nil
	}
	return []step{doing("disconnect from", "all subsystems", "their disks go away", func(ctx context.Context) error {
		if _, err := s.run(ctx, "nvme", "disconnect-all"); err != nil {
			return fmt.Errorf("disconnecting from all subsystems: %w", err)
		}
		return l.write(nil)
	})}
}

// disconnects returns the steps that close connections which are ours and not
// wanted. What discovery found is only closed by disconnectAll.
func (s *nvme) disconnects(config api.ServiceNVMEConfig) []step {
	l := s.ledger()
	var steps []step
	for _, key := range l.below(pathKey) {
		t, ok := parsePathKey(key)
		if !ok || slices.ContainsFunc(config.Targets, func(w api.ServiceNVMETarget) bool { return pathOf(w) == key }) {
			continue
		}
		st := doing("disconnect from", t.NQN+" at "+t.Address, "its disks lose this path", func(ctx context.Context) error {
			for _, c := range s.controllersTo(t) {
				if _, err := s.run(ctx, "nvme", "disconnect", "--device="+c.Name); err != nil {
					return fmt.Errorf("disconnecting from %s at %s: %w", t.NQN, t.Address, err)
				}
			}
			return l.forget(pathKey + key)
		})
		st.apart = true
		steps = append(steps, st)
	}
	return steps
}

// connects returns the steps that make the connections which are missing: one for
// each subsystem, which is reached when one of its paths is, and one for all that
// is to be discovered. The latter is asked again after something was closed, which
// may be listed as well.
func (s *nvme) connects(config api.ServiceNVMEConfig, closed bool) []step {
	var steps []step
	var subsystems []string
	missing := make(map[string][]api.ServiceNVMETarget)
	var discover []api.ServiceNVMETarget
	for _, t := range config.Targets {
		switch {
		case t.NQN == "":
			discover = append(discover, t)
		case len(s.controllersTo(t)) == 0:
			if missing[t.NQN] == nil {
				subsystems = append(subsystems, t.NQN)
			}
			missing[t.NQN] = append(missing[t.NQN], t)
		}
	}
	for _, nqn := range subsystems {
		st := doing("connect to", nqn+" at "+addresses(missing[nqn]), "", func(ctx context.Context) error { return s.connect(ctx, nqn, missing[nqn]) })
		st.apart = true
		steps = append(steps, st)
	}
	if len(discover) > 0 && (closed || s.ledger().get(discoverKey) != listDigest(discover) || len(s.subsystems()) == 0) {
		st := doing("connect to", "all that "+addresses(discover)+" lists", "", func(ctx context.Context) error { return s.discover(ctx, discover) })
		st.apart = true
		steps = append(steps, st)
	}
	return steps
}

// connect connects to a subsystem by all paths. One is enough; the others are
// tried again with the next reconciliation.
func (s *nvme) connect(ctx context.Context, nqn string, paths []api.ServiceNVMETarget) error {
	l := s.ledger()
	var last error
	for _, t := range paths {
		if err := l.put(pathKey+pathOf(t), "ours"); err != nil {
			return err
		}
	}
	err := insist(ctx, func(ctx context.Context) error {
		for _, t := range paths {
			if len(s.controllersTo(t)) == 0 {
				last = errors.Join(last, s.each(t, func(args []string) error {
					// The kernel goes on trying for as long as the machine runs.
					_, err := s.run(ctx, "nvme", append(append([]string{"connect"}, args...), "--nqn="+nqn, "--ctrl-loss-tmo=-1")...)
					return err
				}))
			}
		}
		if s.reached(nqn) {
			return nil
		}
		err := last
		last = nil
		if err == nil {
			err = errors.New("nvme found nothing to complain about, and there is no controller")
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("connecting to %s at %s: %w", nqn, addresses(paths), err)
	}
	return nil
}

// discover connects to everything that the addresses list.
func (s *nvme) discover(ctx context.Context, targets []api.ServiceNVMETarget) error {
	l := s.ledger()
	if err := l.put(discoverKey, "begun"); err != nil {
		return err
	}
	for _, t := range targets {
		err := insist(ctx, func(ctx context.Context) error {
			return s.each(t, func(args []string) error {
				_, err := s.run(ctx, "nvme", append(append([]string{"connect-all"}, args...), "--ctrl-loss-tmo=-1")...)
				return err
			})
		})
		if err != nil {
			return fmt.Errorf("connecting to what %s lists: %w", t.Address, err)
		}
	}
	return l.put(discoverKey, listDigest(targets))
}

// each calls do with the arguments for a target: once, or by Fibre Channel for
// each port of ours unless one is given.
func (s *nvme) each(t api.ServiceNVMETarget, do func(args []string) error) error {
	args := []string{"--transport=" + t.Transport, "--traddr=" + t.Address}
	if t.Port != 0 && t.Transport != "fc" {
		args = append(args, "--trsvcid="+strconv.Itoa(t.Port))
	}
	ours := []string{t.HostAddress}
	if t.Transport == "fc" && t.HostAddress == "" {
		ours = nil
		for _, port := range s.fibreChannel() {
			ours = append(ours, "nn-"+port.NodeName+":pn-"+port.PortName)
		}
		if ours == nil {
			return errors.New("this machine has no Fibre Channel port")
		}
	}
	var errs []error
	for _, host := range ours {
		with := slices.Clone(args)
		if host != "" {
			with = append(with, "--host-traddr="+host)
		}
		if err := do(with); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) < len(ours) {
		return nil // by one port at least
	}
	return together(errs)
}

func addresses(targets []api.ServiceNVMETarget) string {
	var all []string
	for _, t := range targets {
		all = append(all, t.Address)
	}
	return strings.Join(all, ", ")
}

func listDigest(targets []api.ServiceNVMETarget) string {
	var all []string
	for _, t := range targets {
		all = append(all, pathOf(t))
	}
	return digest(all...)
}

func pathOf(t api.ServiceNVMETarget) string {
	return strings.Join([]string{t.Transport, t.Address, strconv.Itoa(t.Port), t.NQN, t.HostAddress}, "|")
}

func parsePathKey(key string) (t api.ServiceNVMETarget, ok bool) {
	f := strings.SplitN(key, "|", 4)
	if len(f) != 4 {
		return t, false
	}
	last := strings.LastIndexByte(f[3], '|') // the name may have some
	port, err := strconv.Atoi(f[2])
	if err != nil || last < 0 {
		return t, false
	}
	return api.ServiceNVMETarget{Transport: f[0], Address: f[1], Port: port, NQN: f[3][:last], HostAddress: f[3][last+1:]}, true
}

// controllersTo returns the controllers that are the connection to t.
func (s *nvme) controllersTo(t api.ServiceNVMETarget) []api.ServiceNVMEController {
	var all []api.ServiceNVMEController
	for _, sub := range s.subsystems() {
		for _, c := range sub.Controllers {
			a := parseNVMEAddress(c.Address)
			port := t.Transport == "fc" || a["trsvcid"] == strconv.Itoa(t.Port) || t.Port == 0
			ours := t.HostAddress == "" || a["host_traddr"] == t.HostAddress
			if sub.NQN == t.NQN && c.Transport == t.Transport && sameAddress(a["traddr"], t.Address) && port && ours && (t.Transport != "fc" || a["traddr"] == t.Address) {
				all = append(all, c)
			}
		}
	}
	return all
}

// reached reports whether a subsystem has a controller, whatever its address is.
func (s *nvme) reached(nqn string) bool {
	return slices.ContainsFunc(s.subsystems(), func(sub api.ServiceNVMESubsystem) bool { return sub.NQN == nqn })
}

// parseNVMEAddress reads what the kernel says of where a controller is, such as
// "traddr=192.0.2.20,trsvcid=4420,src_addr=192.0.2.10".
func parseNVMEAddress(s string) map[string]string {
	all := make(map[string]string)
	for part := range strings.SplitSeq(s, ",") {
		if key, value, ok := strings.Cut(part, "="); ok {
			all[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	return all
}

var (
	controllerName = regexp.MustCompile(`^nvme\d+$`)
	namespaceName  = regexp.MustCompile(`^(nvme\d+)(?:c\d+)?(n\d+)$`)
)

// subsystems returns those that are reached over a network.
func (s *nvme) subsystems() []api.ServiceNVMESubsystem {
	const class = "/sys/class/nvme-subsystem/"
	var all []api.ServiceNVMESubsystem
	for _, name := range s.list(class) {
		sub := api.ServiceNVMESubsystem{Name: name, NQN: s.attribute(class + name + "/subsysnqn")}
		for _, c := range s.list(class + name) {
			dir := class + name + "/" + c
			transport := s.attribute(dir + "/transport")
			if !controllerName.MatchString(c) || transport == "" || transport == "pcie" || s.attribute(dir+"/cntrltype") == "discovery" {
				continue
			}
			sub.Controllers = append(sub.Controllers, api.ServiceNVMEController{
				Name: c, Transport: transport, Address: s.attribute(dir + "/address"), State: s.attribute(dir + "/state"),
				Namespaces: namespaces(s.list(dir)),
			})
		}
		if sub.Controllers != nil {
			all = append(all, sub)
		}
	}
	return all
}

// namespaces picks the drives out of the entries of a controller. Where a drive
// may have several paths, the kernel puts the path into the name: "nvme1c2n1".
func namespaces(entries []string) []string {
	var all []string
	for _, e := range entries {
		if m := namespaceName.FindStringSubmatch(e); m != nil {
			all = append(all, m[1]+m[2])
		}
	}
	return all
}

func (s *nvme) check(api.ServiceNVMEConfig) error { return nil }

func (s *nvme) refresh(context.Context, api.ServiceNVMEConfig) {}

func (s *nvme) document(config api.ServiceNVMEConfig, state api.ServiceState) any {
	return api.ServiceNVME{Config: config, State: api.ServiceNVMEState{
		ServiceState: state, HostID: s.attribute(hostIDFile), HostNQN: s.attribute(hostNQNFile), Subsystems: s.subsystems(),
	}}
}
