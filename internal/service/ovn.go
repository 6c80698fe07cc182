package service

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/incusos/incusos/api"
)

// ovn makes the machine a chassis of OVN: Open vSwitch, told where the databases
// are and how tunnels go, and ovn-controller, which does as they say.
type ovn struct {
	machine
	cluster func() []string
}

func newOVN(m machine, cluster func() []string) *ovn { return &ovn{m, cluster} }

const (
	ovnDir  = "/run/ovn"
	ovnUnit = "/run/systemd/system/ovn-controller.service"
	idsKey  = "external-ids" // in the ledger: what Open vSwitch was told
)

// renderOVN returns the unit of ovn-controller, and its certificates.
func renderOVN(config api.ServiceOVNConfig) map[string]file {
	args := ""
	files := make(map[string]file)
	if config.TLSClientCertificate != "" {
		args = " -p " + ovnDir + "/client.key -c " + ovnDir + "/client.crt -C " + ovnDir + "/ca.crt"
		files[ovnDir+"/client.key"] = file{content: string(config.TLSClientKey), perm: 0o600}
		files[ovnDir+"/client.crt"] = file{content: config.TLSClientCertificate, perm: 0o644}
		files[ovnDir+"/ca.crt"] = file{content: config.TLSCACertificate, perm: 0o644}
	}
	files[ovnUnit] = file{perm: 0o644, content: `# Made by incus-osd; do not edit.
[Unit]
Description=OVN controller of this chassis
Requires=ovs-vswitchd.service
After=ovs-vswitchd.service
Before=incus.service

[Service]
ExecStart=/usr/bin/ovn-controller unix:/run/openvswitch/db.sock --no-chdir -vconsole:off -vsyslog:info` + args + `
Restart=on-failure
RuntimeDirectory=ovn
RuntimeDirectoryPreserve=yes
`}
	return files
}

// renderIDs returns what Open vSwitch is told about a chassis (ovn-controller(8)).
func renderIDs(config api.ServiceOVNConfig, chassis, hostname, tunnel string) []string {
	ids := []string{
		"hostname=" + quote(hostname),
		"ovn-encap-ip=" + quote(tunnel),
		"ovn-encap-type=" + quote(cmp.Or(config.TunnelProtocol, "geneve")),
		"ovn-is-interconn=" + fmt.Sprint(config.ICChassis),
		"ovn-remote=" + quote(config.Database),
		"system-id=" + quote(chassis),
	}
	for i := range ids {
		ids[i] = "external_ids:" + ids[i]
	}
	return ids
}

// quote makes text a value for ovs-vsctl. None that reaches it has a quote or a
// backslash in it.
func quote(s string) string { return `"` + s + `"` }

func (s *ovn) steps(ctx context.Context, config api.ServiceOVNConfig, on bool) ([]step, error) {
	vswitch := setup{
		key: "vswitch", modules: []string{"openvswitch"}, units: []string{"ovsdb-server.service", "ovs-vswitchd.service"},
		forget: []string{idsKey}, risk: "its bridges carry nothing meanwhile",
	}
	controller := setup{
		key: "controller", units: []string{"ovn-controller.service"}, reload: true,
		owned: []string{ovnUnit, ovnDir + "/client.key", ovnDir + "/client.crt", ovnDir + "/ca.crt"},
	}
	if !on {
		down, err := s.lower(ctx, controller)
		if err != nil {
			return nil, err
		}
		below, err := s.lower(ctx, vswitch)
		return append(down, below...), err
	}
	tunnel, err := s.tunnel(config)
	if err != nil {
		return nil, err
	}
	chassis, err := s.identity("ovn")
	if err != nil {
		return nil, err
	}
	controller.files = renderOVN(config)
	up, err := s.raise(ctx, vswitch)
	if err != nil {
		return nil, err
	}
	above, err := s.raise(ctx, controller)
	tell := s.tell(renderIDs(config, asUUID(chassis), s.attribute("/proc/sys/kernel/hostname"), tunnel), len(up) > 0)
	return slices.Concat(up, tell, above), err
}

// tell returns the step that tells Open vSwitch what it was not told since it was
// started.
func (s *ovn) tell(ids []string, started bool) []step {
	l, now := s.ledger(), digest(ids...)
	if !started && l.get(idsKey) == now {
		return nil
	}
	return []step{doing("set", "the databases and tunnels of this chassis", "", func(ctx context.Context) error {
		if _, err := s.run(ctx, "ovs-vsctl", append([]string{"--timeout=10", "set", "open_vswitch", "."}, ids...)...); err != nil {
			return fmt.Errorf("telling Open vSwitch about the chassis: %w", err)
		}
		return l.put(idsKey, now)
	})}
}

// tunnel returns the address that tunnels end at.
func (s *ovn) tunnel(config api.ServiceOVNConfig) (string, error) {
	if config.TunnelAddress != "" {
		return config.TunnelAddress, nil
	}
	var found string
	for _, a := range s.cluster() {
		p, err := netip.ParsePrefix(a)
		switch {
		case err != nil:
		case p.Addr().Is6():
			return p.Addr().String(), nil
		case found == "":
			found = p.Addr().String()
		}
	}
	if found == "" {
		return "", api.Errorf(api.Unavailable, "no interface with the role cluster has an address yet; set config.tunnel_address, or give an interface that role")
	}
	return found, nil
}

func (s *ovn) check(api.ServiceOVNConfig) error { return nil }

func (s *ovn) refresh(context.Context, api.ServiceOVNConfig) {}

func (s *ovn) document(config api.ServiceOVNConfig, state api.ServiceState) any {
	return api.ServiceOVN{Config: config, State: state}
}
