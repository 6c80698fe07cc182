package api_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/incusos/incusos/api"
)

// emptyServices returns an empty configuration of each service.
func emptyServices() map[string]interface{ Validate() error } {
	return map[string]interface{ Validate() error }{
		"ceph": new(api.ServiceCephConfig), "iscsi": new(api.ServiceISCSIConfig), "linstor": new(api.ServiceLinstorConfig),
		"netbird": new(api.ServiceNetbirdConfig), "nvme": new(api.ServiceNVMEConfig), "multipath": new(api.ServiceMultipathConfig),
		"lvm": new(api.ServiceLVMConfig), "ovn": new(api.ServiceOVNConfig), "tailscale": new(api.ServiceTailscaleConfig), "usbip": new(api.ServiceUSBIPConfig),
	}
}

const (
	fsid    = `"fsid":"6f3e5b0c-33a5-4bd8-8d3a-0b6f1f0d7c11"`
	cluster = `{"clusters":{"ceph":{` + fsid + `,"monitors":["192.0.2.31"]`
	fcHere  = "nn-0x20000090fa942779:pn-0x10000090fa942779"
)

// servicesTaken has for each service what is taken, and what is not with the field
// that is said to be wrong; "" takes it.
var servicesTaken = []struct{ service, config, field string }{
	{"ceph", `{}`, ""},
	{"ceph", cluster + `,"keyrings":{"incus":{"key":"QVFBPQ=="}},"client_config":{"rbd cache":"a = b"}}}}`, ""},
	{"ceph", `{"clusters":{"ceph":{` + fsid + `,"monitors":["[v2:192.0.2.31:3300,v1:192.0.2.31:6789]"]}}}`, ""},
	{"ceph", `{"clusters":{"../ceph":{}}}`, "clusters.../ceph"},
	{"ceph", `{"clusters":{"":{}}}`, "clusters."},
	{"ceph", `{"clusters":{"ceph":{"fsid":"6f3e5b0c"}}}`, "clusters.ceph.fsid"},
	{"ceph", `{"clusters":{"ceph":{` + fsid + `}}}`, "clusters.ceph.monitors"},
	{"ceph", `{"clusters":{"ceph":{` + fsid + `,"monitors":["a\nb"]}}}`, "clusters.ceph.monitors"},
	{"ceph", cluster + `,"keyrings":{"a/b":{"key":"QVFBPQ=="}}}}}`, "clusters.ceph.keyrings.a/b"},
	{"ceph", cluster + `,"keyrings":{"incus":{"key":""}}}}}`, "clusters.ceph.keyrings.incus.key"},
	{"ceph", cluster + `,"keyrings":{"incus":{"key":"a\n[b]"}}}}}`, "clusters.ceph.keyrings.incus.key"},
	{"ceph", cluster + `,"client_config":{"a":"b\nc"}}}}`, "clusters.ceph.client_config.a"},
	{"ceph", cluster + `,"client_config":{"[a]":"b"}}}}`, "clusters.ceph.client_config.[a]"},

	{"iscsi", `{"enabled":true}`, ""},
	{"iscsi", `{"targets":[{"target":"eui.02004567A425678D","address":"fe80::1%eth0"},{"target":"iqn.2026-01.a:b","address":"storage.example.org","port":860}]}`, ""},
	{"iscsi", `{"targets":[{"target":"iqn.a:b","address":"192.0.2.20","username":"u","password":"twelve-chars"}]}`, ""},
	{"iscsi", `{"targets":[{"target":"disk1","address":"192.0.2.20"}]}`, "targets[0].target"},
	{"iscsi", `{"targets":[{"target":"iqn.a b","address":"192.0.2.20"}]}`, "targets[0].target"},
	{"iscsi", `{"targets":[{"target":"iqn.a","address":"--help"}]}`, "targets[0].address"},
	{"iscsi", `{"targets":[{"target":"iqn.a","address":"192.0.2.20","port":65536}]}`, "targets[0].port"},
	{"iscsi", `{"targets":[{"target":"iqn.a","address":"192.0.2.20","password":"twelve-chars"}]}`, "targets[0].username"},
	{"iscsi", `{"targets":[{"target":"iqn.a","address":"192.0.2.20","username":"a b","password":"twelve-chars"}]}`, "targets[0].username"},
	{"iscsi", `{"targets":[{"target":"iqn.a","address":"192.0.2.20","username":"a","password":"eleven-char"}]}`, "targets[0].password"},
	{"iscsi", `{"targets":[{"target":"iqn.a","address":"192.0.2.20","username":"a","password":"twelve\nchars"}]}`, "targets[0].password"},
	{"iscsi", `{"targets":[{"target":"iqn.a","address":"192.0.2.20"},{"target":"iqn.a","address":"192.0.2.20","port":3260}]}`, "targets[1]"},

	{"linstor", `{"tls_server_certificate":"-----BEGIN A","tls_server_key":"-----BEGIN A","tls_trusted_certificates":["-----BEGIN A"]}`, ""},
	{"linstor", `{"tls_server_certificate":"-----BEGIN A"}`, "tls_server_key"},
	{"linstor", `{"tls_server_key":"key"}`, "tls_server_key"},
	{"linstor", `{"tls_trusted_certificates":["certificate"]}`, "tls_trusted_certificates[0]"},

	{"lvm", `{}`, ""},
	{"lvm", `{"enabled":true,"system_id":2000}`, ""},
	{"lvm", `{"enabled":true}`, "system_id"},
	{"lvm", `{"system_id":2001}`, "system_id"},
	{"lvm", `{"system_id":-1}`, "system_id"},

	{"multipath", `{"wwns":["0x600508b4000156d7","0x600508b4000156d700000000000000a1"]}`, ""},
	{"multipath", `{"wwns":["600508b4000156d7"]}`, "wwns[0]"},
	{"multipath", `{"wwns":["0x600508B4000156D7"]}`, "wwns[0]"},
	{"multipath", `{"wwns":["0x600508b4000156"]}`, "wwns[0]"},
	{"multipath", `{"wwns":["0x600508b4000156d7","0x600508b4000156d7"]}`, "wwns[1]"},

	{"netbird", `{"management_url":"https://vpn.example.org:33073"}`, ""},
	{"netbird", `{"management_url":"vpn.example.org"}`, "management_url"},
	{"netbird", `{"admin_url":"https://a'b"}`, "admin_url"},

	{"nvme", `{"targets":[{"transport":"tcp","address":"192.0.2.21","host_address":"192.0.2.10","nqn":"nqn.2026-01.a:b"},{"transport":"tcp","address":"192.0.2.21"}]}`, ""},
	{"nvme", `{"targets":[{"transport":"fc","address":"` + fcHere + `","host_address":"` + fcHere + `"}]}`, ""},
	{"nvme", `{"targets":[{"transport":"rdma","address":"192.0.2.21"}]}`, "targets[0].transport"},
	{"nvme", `{"targets":[{"transport":"tcp","address":"192.0.2.21,trsvcid=1"}]}`, "targets[0].address"},
	{"nvme", `{"targets":[{"transport":"tcp","address":"192.0.2.21","host_address":"-x"}]}`, "targets[0].host_address"},
	{"nvme", `{"targets":[{"transport":"tcp","address":"192.0.2.21","nqn":"disk1"}]}`, "targets[0].nqn"},
	{"nvme", `{"targets":[{"transport":"tcp","address":"192.0.2.21","nqn":"nqn.a,b"}]}`, "targets[0].nqn"},
	{"nvme", `{"targets":[{"transport":"tcp","address":"192.0.2.21","port":-1}]}`, "targets[0].port"},
	{"nvme", `{"targets":[{"transport":"fc","address":"192.0.2.21"}]}`, "targets[0].address"},
	{"nvme", `{"targets":[{"transport":"fc","address":"` + fcHere + `","host_address":"nn-0x1:pn-0x2"}]}`, "targets[0].host_address"},
	{"nvme", `{"targets":[{"transport":"tcp","address":"192.0.2.21"},{"transport":"tcp","address":"192.0.2.21"}]}`, "targets[1]"},

	{"ovn", `{}`, ""},
	{"ovn", `{"enabled":true,"database":"tcp:192.0.2.1:6642,tcp:[2001:db8::1]:6642","tunnel_address":"2001:db8::2","tunnel_protocol":"vxlan"}`, ""},
	{"ovn", `{"enabled":true}`, "database"},
	{"ovn", `{"database":"unix:/run/db.sock"}`, "database"},
	{"ovn", `{"database":"tcp:192.0.2.1"}`, "database"},
	{"ovn", `{"database":"tcp:192.0.2.1:0"}`, "database"},
	{"ovn", `{"database":"tcp:a\"b:6642"}`, "database"},
	{"ovn", `{"database":"ssl:192.0.2.1:6642"}`, "tls_client_certificate"},
	{"ovn", `{"database":"tcp:192.0.2.1:6642","tls_client_key":"-----BEGIN A"}`, "tls_ca_certificate"},
	{"ovn", `{"tls_ca_certificate":"certificate"}`, "tls_ca_certificate"},
	{"ovn", `{"tunnel_address":"machine"}`, "tunnel_address"},
	{"ovn", `{"tunnel_protocol":"gre"}`, "tunnel_protocol"},

	{"tailscale", `{"login_server":"https://vpn.example.org","advertised_routes":["192.0.2.0/24"],"serve_port":443}`, ""},
	{"tailscale", `{"login_server":"ftp://vpn"}`, "login_server"},
	{"tailscale", `{"advertised_routes":["192.0.2.1"]}`, "advertised_routes[0]"},
	{"tailscale", `{"serve_port":70000}`, "serve_port"},

	{"usbip", `{"targets":[{"address":"192.0.2.22","bus_id":"1-1.2"},{"address":"host.example.org","bus_id":"3-14"}]}`, ""},
	{"usbip", `{"targets":[{"address":"","bus_id":"1-1"}]}`, "targets[0].address"},
	{"usbip", `{"targets":[{"address":"192.0.2.22","bus_id":"usb1"}]}`, "targets[0].bus_id"},
	{"usbip", `{"targets":[{"address":"192.0.2.22","bus_id":"1-1/.."}]}`, "targets[0].bus_id"},
	{"usbip", `{"targets":[{"address":"192.0.2.22","bus_id":"1-1"},{"address":"192.0.2.22","bus_id":"1-1"}]}`, "targets[1]"},
}

func TestServicesValidate(t *testing.T) {
	seen := make(map[string]bool)
	for _, tt := range servicesTaken {
		c := emptyServices()[tt.service]
		if err := json.Unmarshal([]byte(tt.config), c); err != nil {
			t.Fatalf("%s %s: %v", tt.service, tt.config, err)
		}
		seen[tt.service] = true
		err := c.Validate()
		f, ok := errors.AsType[*api.FieldError](err)
		if tt.field == "" && err != nil || tt.field != "" && (!ok || f.Field != tt.field) {
			t.Errorf("%s %s: Validate() = %v, want a complaint about %q", tt.service, tt.config, err, tt.field)
		}
	}
	for _, name := range api.ServiceNames() {
		if !seen[name] {
			t.Errorf("nothing was tried of the service %s", name)
		}
	}
}

func TestSeedServicesSayWhichServiceIsWrong(t *testing.T) {
	var s api.SeedServices
	if err := json.Unmarshal([]byte(`{"lvm":{"enabled":true,"system_id":1},"usbip":{"targets":[{"address":"192.0.2.22","bus_id":"x"}]}}`), &s); err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(); err == nil || !strings.Contains(err.Error(), "usbip.targets[0].bus_id") {
		t.Errorf("Validate() = %v, want usbip.targets[0].bus_id in it", err)
	}
	if all := s.ByName(); len(all) != 2 || all["lvm"] != s.LVM {
		t.Errorf("ByName() = %v, want lvm and usbip", all)
	}
}
