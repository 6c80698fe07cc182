package seed_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/incusos/incusos/internal/seed"
)

func TestMistakesAreNamedWithTheirPlace(t *testing.T) {
	tests := map[string]struct{ file, content, want string }{
		"misspelt field":        {"install.yaml", "version: \"1\"\n\nforce_instal: true\n", `install.yaml:3:1: unknown field "force_instal"; did you mean "force_install"?`},
		"misspelt field inside": {"install.yaml", "target:\n  buss: nvme\n", `install.yaml:2:3: unknown field "buss"; did you mean "bus"?`},
		"unheard-of field":      {"install.yaml", "colour: red\n", `install.yaml:1:1: unknown field "colour"; want one of version, force_install, force_install_confirmation, force_reboot, security, target`},
		"field of a later time": {"network.yaml", "interfaces: []\nbridges: []\n", `network.yaml:2:1: unknown field "bridges"; want one of version, confirmation_timeout, default_confirmation_timeout, dns, time, proxy, interfaces, bonds, vlans, wireguard`},
		"in JSON":               {"install.json", "{\n  \"force_instal\": true\n}", `install.json:2:3: unknown field "force_instal"; did you mean "force_install"?`},
		"text for a truth":      {"install.yaml", "force_install: yes\n", `install.yaml:1:16: "yes" is no truth value; want true or false`},
		"number for text":       {"install.yaml", "version: 1\n", `install.yaml:1:10: 1 is no text; want it in quotes: "1"`},
		"list for mapping":      {"install.yaml", "target: [nvme]\n", `install.yaml:1:9: a list is no mapping; want a mapping of bus, id, min_size, max_size, sort_order`},
		"mapping for list":      {"network.yaml", "interfaces: {name: x}\n", `network.yaml:1:13: a mapping is no list; want a list`},
		"fraction for number":   {"network.yaml", "interfaces:\n- name: x\n  mtu: 1.5\n", `network.yaml:3:8: "1.5" is no number; want a whole number`},
		"huge number":           {"network.yaml", "interfaces:\n- mtu: 18446744073709551615\n", `network.yaml:2:8: 18446744073709551615 is not understood; want a whole number`},
		"nothing after a key":   {"install.yaml", "target:\n", `has no value; want a mapping of bus`},
		"key twice":             {"install.yaml", "force_install: true\nforce_install: false\n", `install.yaml:2:1: "force_install" is set twice; keep one`},
		"second document":       {"install.yaml", "force_install: true\n---\nforce_reboot: true\n", `install.yaml:2:1: a second document starts here`},
		"open bracket":          {"install.json", "{\"target\": [", `install.json:1:`},
		"alias":                 {"incus.yaml", "preseed: &a {b: 1}\n", `incus.yaml:1:10: "&": anchors`},
		"deep nesting":          {"incus.yaml", "preseed: {a: " + strings.Repeat("[", 100000) + "}", `nests too deep`},
		"deep dashes":           {"incus.yaml", "preseed:\n  a:\n    " + strings.Repeat("- ", 100000) + "1\n", `nests too deep`},
		"no text at all":        {"incus.yaml", "a: \xff\n", `incus.yaml: is not text`},
		"scalar document":       {"incus.yaml", "true\n", `incus.yaml:1:1: "true" is no mapping; want a mapping of version, apply_defaults, preseed`},
		"value out of range":    {"network.yaml", "interfaces:\n- name: a\n  hwaddr: eth0\n  mtu: 5\n", `network.yaml:4:8: interfaces[0].mtu: 5 is out of range; want 1280 to 9000`},
		"field that is missing": {"network.yaml", "interfaces:\n- name: a\n", `network.yaml:2:3: interfaces[0].hwaddr: "" is no MAC address`},
		"forgotten list":        {"applications.yaml", "version: \"1\"\napplications: []\n", `applications.yaml:2:15: applications: is empty`},
		"forgotten everything":  {"applications.yaml", "", `applications.yaml:1:1: applications: is empty`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := ask(open(t, machine(t, archive(t, entry{tt.file, tt.content}), "")))
			if err == nil || !strings.HasPrefix(err.Error(), "seed-data: "+tt.file) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

// ask decodes every section there is.
func ask(s *seed.Seed) error {
	if _, _, err := s.Install(); err != nil {
		return err
	}
	if _, _, err := s.ApplicationList(); err != nil {
		return err
	}
	if _, _, err := s.Incus(); err != nil {
		return err
	}
	_, _, err := s.Network()
	return err
}

func TestIncusDocumentIsKeptAsWritten(t *testing.T) {
	s := open(t, machine(t, archive(t, entry{"incus.yaml", `
preseed:
  config:
    core.https_address: ":8443"
    limit: 9007199254740991
    "yes": no
  certificate: |
    -----BEGIN-----
    x
  networks: [{name: incusbr0, managed: true, nothing: null}]
`}), ""))
	doc, _, err := s.Incus()
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(doc.Preseed)
	want := `{"certificate":"-----BEGIN-----\nx\n","config":{"core.https_address":":8443","limit":9007199254740991,"yes":"no"},` +
		`"networks":[{"managed":true,"name":"incusbr0","nothing":null}]}`
	if err != nil || string(got) != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
}

func TestNetworkOfEveryField(t *testing.T) {
	const text = "\ufeffversion: \"1\"\r\n" + `
dns: {hostname: node1, domain: example.net, nameservers: [192.0.2.53], search_domains: [example.net]}
time: {timezone: Europe/Paris, ntp_servers: [ntp.example.net]}
interfaces:
  - name: mgmt
    hwaddr: 52:54:00:00:00:01
    addresses: [dhcp4, slaac, 192.0.2.10/24]
    routes: [{to: 0.0.0.0/0, via: 192.0.2.1}]
    roles: [management, cluster]
    required_for_online: no
    mtu: 9000
    strict_hwaddr: true
    lldp: true
`
	doc, _, err := open(t, machine(t, archive(t, entry{"network.yaml", text}), "")).Network()
	if err != nil {
		t.Fatal(err)
	}
	n := doc.Interfaces[0]
	if doc.Version != "1" || n.Hwaddr != "52:54:00:00:00:01" || n.RequiredForOnline != "no" || n.MTU != 9000 || !n.StrictHwaddr || len(n.Addresses) != 3 {
		t.Errorf("got %+v", doc)
	}
}
