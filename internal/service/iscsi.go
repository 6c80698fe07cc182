package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

// iscsi attaches disks by open-iscsi. Sessions are read from sysfs, where the
// kernel shows them whoever opened them; Incus opens some of its own, so that only
// those in the ledger are ever closed.
type iscsi struct{ machine }

func newISCSI(m machine) *iscsi { return &iscsi{m} }

const (
	iscsidConf    = "/etc/iscsi/iscsid.conf"
	initiatorFile = "/etc/iscsi/initiatorname.iscsi"
	initiatorKey  = "InitiatorName="
	sessionKey    = "session " // before "TARGET ADDRESS PORT" in the ledger
)

// iscsidSettings is iscsid.conf. Records are never logged in to by iscsid on its
// own: what is attached is decided here.
const iscsidSettings = "# Made by incus-osd; do not edit.\nnode.startup = manual\n"

// renderAuth returns iscsid.conf with which records of t are made: they take over
// what is in it. A password on a command line could be seen by others.
func renderAuth(t api.ServiceISCSITarget) string {
	if t.Username == "" {
		return iscsidSettings
	}
	var b strings.Builder
	b.WriteString(iscsidSettings)
	for _, what := range []string{"node.session", "discovery.sendtargets"} {
		fmt.Fprintf(&b, "%s.auth.authmethod = CHAP\n%s.auth.username = %s\n%s.auth.password = %s\n", what, what, t.Username, what, string(t.Password))
	}
	return b.String()
}

// setup is what open-iscsi needs to run.
func (s *iscsi) setup() (setup, error) {
	files := map[string]file{iscsidConf: {iscsidSettings, 0o600, true}}
	if !s.own(initiatorFile, initiatorKey) {
		id, err := s.identity("iscsi")
		if err != nil {
			return setup{}, err
		}
		files[initiatorFile] = file{initiatorKey + "iqn.2004-10.org.linuxcontainers:01:" + id[:12] + "\n", 0o600, true}
	}
	return setup{
		key: "iscsid", modules: []string{"iscsi_tcp"}, files: files, owned: []string{iscsidConf},
		units: []string{"iscsid.service"}, risk: "sessions that break meanwhile are not mended",
	}, nil
}

func (s *iscsi) steps(ctx context.Context, config api.ServiceISCSIConfig, on bool) ([]step, error) {
	base, err := s.setup()
	if err != nil {
		return nil, err
	}
	if !on {
		down, err := s.lower(ctx, base)
		return append(s.logouts(nil), down...), err
	}
	up, err := s.raise(ctx, base)
	if err != nil {
		return nil, err
	}
	return slices.Concat(up, s.logouts(config.Targets), s.logins(config.Targets)), nil
}

// logouts returns the steps that close the sessions which are ours and not wanted.
func (s *iscsi) logouts(wanted []api.ServiceISCSITarget) []step {
	var steps []step
	l := s.ledger()
	for _, key := range l.below(sessionKey) {
		t, ok := parseSessionKey(key)
		keep := slices.ContainsFunc(wanted, func(w api.ServiceISCSITarget) bool {
			return keyOf(w) == key && credentials(w) == l.get(sessionKey+key)
		})
		if keep || !ok {
			continue
		}
		steps = append(steps, doing("log out of", t.Target+" at "+portal(t), "its disks go away", func(ctx context.Context) error {
			return s.logout(ctx, t)
		}))
		steps[len(steps)-1].apart = true
	}
	return steps
}

func (s *iscsi) logout(ctx context.Context, t api.ServiceISCSITarget) error {
	at := portal(t)
	if i := s.session(t); i != nil {
		at = portal(api.ServiceISCSITarget{Address: i.Address, Port: i.Port})
		_, err := s.run(ctx, "iscsiadm", "-m", "node", "-T", t.Target, "-p", at, "--logout")
		if err != nil && !exited(err, notFound, noSession) {
			return fmt.Errorf("logging out of %s at %s: %w; it may be in use", t.Target, at, err)
		}
	}
	// The record has the password.
	if _, err := s.run(ctx, "iscsiadm", "-m", "node", "-T", t.Target, "-p", at, "-o", "delete"); err != nil && !exited(err, notFound) {
		return fmt.Errorf("forgetting %s at %s: %w", t.Target, at, err)
	}
	return s.ledger().forget(sessionKey + keyOf(t))
}

// logins returns the steps that open the sessions which are missing.
func (s *iscsi) logins(wanted []api.ServiceISCSITarget) []step {
	var steps []step
	l := s.ledger()
	for _, t := range wanted {
		noted := l.get(sessionKey + keyOf(t))
		if s.session(t) != nil && (noted == credentials(t) || noted == "") {
			continue
		}
		steps = append(steps, doing("log in to", t.Target+" at "+portal(t), "", func(ctx context.Context) error {
			if err := s.login(ctx, t); err != nil {
				return fmt.Errorf("logging in to %s at %s: %w", t.Target, portal(t), err)
			}
			return nil
		}))
		steps[len(steps)-1].apart = true
	}
	return steps
}

func (s *iscsi) login(ctx context.Context, t api.ServiceISCSITarget) (err error) {
	if t.Username != "" {
		if err := s.Files.WriteFile(iscsidConf, []byte(renderAuth(t)), 0o600); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.Files.WriteFile(iscsidConf, []byte(iscsidSettings), 0o600)) }()
	}
	var found []record
	err = insist(ctx, func(ctx context.Context) error {
		out, err := s.run(ctx, "iscsiadm", "-m", "discovery", "-t", "sendtargets", "-p", portal(t))
		found = parseDiscovery(out)
		return err
	})
	if err != nil {
		return fmt.Errorf("asking for its targets: %w", err)
	}
	at, err := choose(found, t)
	if err != nil {
		return err
	}
	if err := s.ledger().put(sessionKey+keyOf(t), credentials(t)); err != nil {
		return err
	}
	_, err = s.run(ctx, "iscsiadm", "-m", "node", "-T", t.Target, "-p", at, "--login")
	if err != nil && !exited(err, sessionExists) {
		return err
	}
	return nil
}

// choose returns the portal under which t was found.
func choose(found []record, t api.ServiceISCSITarget) (string, error) {
	var elsewhere, others []string
	for _, r := range found {
		switch {
		case r.target != t.Target:
			others = append(others, r.target)
		case r.port == t.Portal() && sameAddress(r.address, t.Address):
			return net.JoinHostPort(r.address, strconv.Itoa(r.port)), nil
		default:
			elsewhere = append(elsewhere, net.JoinHostPort(r.address, strconv.Itoa(r.port)))
		}
	}
	switch {
	case elsewhere != nil:
		return "", fmt.Errorf("the target is there but wants to be reached at %s; use that address", strings.Join(elsewhere, " or "))
	case others != nil:
		return "", fmt.Errorf("that portal has no such target, or does not show it to this machine; it has %s", strings.Join(slices.Compact(others), ", "))
	}
	return "", errors.New("that portal shows no target to this machine; admit the name that `state.initiator_name` shows")
}

// sameAddress reports whether a name or address that was configured may be the
// address that the other side gives. Only it knows to what a host name leads.
func sameAddress(address, configured string) bool {
	want, err := netip.ParseAddr(configured)
	if err != nil {
		return true
	}
	have, err := netip.ParseAddr(strings.Trim(address, "[]"))
	return err == nil && have.Unmap().WithZone("") == want.Unmap().WithZone("")
}

// The ways in which iscsiadm fails that are no failure to us (iscsiadm(8)).
const (
	noSession     = 2
	sessionExists = 15
	notFound      = 21
)

// exited reports whether err is a program that ended with one of the codes.
func exited(err error, codes ...int) bool {
	e, ok := errors.AsType[*sys.ExecError](err)
	return ok && slices.Contains(codes, e.Code)
}

func portal(t api.ServiceISCSITarget) string {
	return net.JoinHostPort(t.Address, strconv.Itoa(t.Portal()))
}

func keyOf(t api.ServiceISCSITarget) string {
	return fmt.Sprintf("%s %s %d", t.Target, t.Address, t.Portal())
}

func parseSessionKey(key string) (t api.ServiceISCSITarget, ok bool) {
	f := strings.Fields(key)
	if len(f) != 3 {
		return t, false
	}
	port, err := strconv.Atoi(f[2])
	return api.ServiceISCSITarget{Target: f[0], Address: f[1], Port: port}, err == nil
}

// credentials stands for how t is logged in to.
func credentials(t api.ServiceISCSITarget) string {
	if t.Username == "" {
		return "none"
	}
	return digest(t.Username, string(t.Password))
}

// A record is a target at a portal.
type record struct {
	target, address string
	port            int
}

// parseDiscovery reads the lines "ADDRESS:PORT,GROUP TARGET" that iscsiadm prints.
func parseDiscovery(out []byte) []record {
	var found []record
	for line := range strings.Lines(string(out)) {
		at, target, ok := strings.Cut(strings.TrimSpace(line), " ")
		at, _, _ = strings.Cut(at, ",")
		address, digits, err := net.SplitHostPort(at)
		port, numErr := strconv.Atoi(digits)
		if ok && err == nil && numErr == nil && address != "" && port > 0 && port <= 65535 && target != "" {
			found = append(found, record{strings.TrimSpace(target), address, port})
		}
	}
	return found
}

// session returns the session with t, or nil.
func (s *iscsi) session(t api.ServiceISCSITarget) *api.ServiceISCSISession {
	for _, i := range s.sessions() {
		if i.Target == t.Target && i.Port == t.Portal() && sameAddress(i.Address, t.Address) {
			return &i
		}
	}
	return nil
}

// sessions returns what the kernel shows (Documentation/ABI has no word of it;
// drivers/scsi/scsi_transport_iscsi.c does).
func (s *iscsi) sessions() []api.ServiceISCSISession {
	const class = "/sys/class/iscsi_session/"
	var all []api.ServiceISCSISession
	for _, name := range s.list(class) {
		number := strings.TrimPrefix(name, "session")
		connection := "/sys/class/iscsi_connection/connection" + number + ":0/"
		port, _ := strconv.Atoi(s.attribute(connection + "persistent_port"))
		all = append(all, api.ServiceISCSISession{
			Target: s.attribute(class + name + "/targetname"), State: s.attribute(class + name + "/state"),
			Address: s.attribute(connection + "persistent_address"), Port: port,
		})
	}
	return all
}

func (s *iscsi) check(api.ServiceISCSIConfig) error { return nil }

func (s *iscsi) refresh(context.Context, api.ServiceISCSIConfig) {}

func (s *iscsi) document(config api.ServiceISCSIConfig, state api.ServiceState) any {
	doc := api.ServiceISCSI{Config: config, State: api.ServiceISCSIState{ServiceState: state, Sessions: s.sessions()}}
	for line := range strings.Lines(s.attribute(initiatorFile)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), initiatorKey); ok {
			doc.State.InitiatorName = name
		}
	}
	return doc
}
