package service

import (
	"encoding/json"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/incusos/incusos/api"
)

// What programs and the kernel print comes from other machines too: a target says
// what it is called. Nothing of it may stop the daemon, nor become an argument that
// a program takes for an option.

func FuzzDiscovery(f *testing.F) {
	f.Add("192.0.2.20:3260,1 iqn.2026-01.org.example:disk1\n[2001:db8::20]:3260,1 iqn.2026-01.org.example:disk2\n")
	f.Add("192.0.2.20:3260,1\n:3260,1 iqn.x\n192.0.2.20:70000,1 -T\niscsiadm: No portals found")
	f.Fuzz(func(t *testing.T, out string) {
		for _, r := range parseDiscovery([]byte(out)) {
			if r.target == "" || r.address == "" || r.port < 1 || r.port > 65535 {
				t.Fatalf("%q has the record %+v", out, r)
			}
			at, err := choose([]record{r}, api.ServiceISCSITarget{Target: r.target, Address: "storage.example.org", Port: r.port})
			if host, port, splitErr := net.SplitHostPort(at); err != nil || splitErr != nil || host != r.address || port != strconv.Itoa(r.port) {
				t.Fatalf("%q: record %+v is at %q, %v", out, r, at, err)
			}
		}
	})
}

func FuzzSessionKey(f *testing.F) {
	f.Add("iqn.2026-01.org.example:disk1 192.0.2.20 3260")
	f.Add("iqn.x  3260")
	f.Fuzz(func(t *testing.T, key string) {
		target, ok := parseSessionKey(key)
		if ok && target.Port > 0 && keyOf(target) != strings.Join(strings.Fields(key), " ") && !strings.ContainsAny(key, "+0") {
			t.Fatalf("%q is %+v, which is %q", key, target, keyOf(target))
		}
	})
}

func FuzzPathKey(f *testing.F) {
	f.Add("tcp", "192.0.2.21", 4420, "nqn.2026-01.org.example:fast", "")
	f.Add("fc", "nn-0x20000090fa942779:pn-0x10000090fa942779", 0, "nqn.a|b", "nn-0x1:pn-0x2")
	f.Fuzz(func(t *testing.T, transport, address string, port int, nqn, host string) {
		if strings.Contains(transport+address+host, "|") {
			t.Skip("no address has one")
		}
		want := api.ServiceNVMETarget{Transport: transport, Address: address, Port: port, NQN: nqn, HostAddress: host}
		if got, ok := parsePathKey(pathOf(want)); !ok || got != want {
			t.Fatalf("%q is %+v, %v; want %+v", pathOf(want), got, ok, want)
		}
		parsePathKey(nqn)
	})
}

func FuzzNVMEAddress(f *testing.F) {
	f.Add("traddr=192.0.2.20,trsvcid=4420,src_addr=192.0.2.10")
	f.Add("nn-0x20:pn-0x10,,=,traddr")
	f.Fuzz(func(t *testing.T, address string) {
		for key, value := range parseNVMEAddress(address) {
			if strings.Contains(key, "=") || strings.Contains(key+value, ",") {
				t.Fatalf("%q has %q = %q", address, key, value)
			}
		}
	})
}

func FuzzNamespaces(f *testing.F) {
	f.Add("nvme1c2n1")
	f.Add("nvme1n12/../x")
	f.Fuzz(func(t *testing.T, entry string) {
		for _, name := range namespaces([]string{entry}) {
			if !namespaceName.MatchString(name) || strings.Contains(name, "c") {
				t.Fatalf("%q is the drive %q", entry, name)
			}
		}
	})
}

const multipathOutput = `36000000000000001 dm-3 HP,HSV210
size=50G features='1 queue_if_no_path' hwhandler='0' wp=rw
|-+- policy='service-time 0' prio=50 status=active
| |- 1:0:0:1 sdb 8:16 active ready running
| ` + "`" + `- 2:0:0:1 sdc 8:32 active ready running
` + "`" + `-+- policy='service-time 0' prio=10 status=enabled
  ` + "`" + `- 3:0:0:1 sdd 8:48 failed faulty offline
mpathb (36000000000000002) dm-4 LIO-ORG,disk
size=64M features='0' hwhandler='1 alua' wp=rw
`

func FuzzMultipath(f *testing.F) {
	f.Add(multipathOutput)
	f.Add("size=1G\n| `- 1:0:0:1 sdb 8:16 active\nx dm-1 y\n`- `-+- policy=''")
	f.Fuzz(func(t *testing.T, out string) {
		devices := parseMultipath(out)
		for id, d := range devices {
			if id == "" || strings.ContainsAny(id, " \n") {
				t.Fatalf("%q has the device %q", out, id)
			}
			for _, g := range d.PathGroups {
				for _, p := range g.Paths {
					if p.ID == "" || p.Status == "" {
						t.Fatalf("%q has the path %+v", out, p)
					}
				}
			}
		}
	})
}

func TestMultipathOutput(t *testing.T) {
	got, err := json.Marshal(parseMultipath(multipathOutput))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"36000000000000001":{"vendor":"HP,HSV210","size":"50G","path_groups":[` +
		`{"policy":"service-time 0","priority":50,"status":"active","paths":[{"id":"1:0:0:1","status":"active ready running"},{"id":"2:0:0:1","status":"active ready running"}]},` +
		`{"policy":"service-time 0","priority":10,"status":"enabled","paths":[{"id":"3:0:0:1","status":"failed faulty offline"}]}]},` +
		`"36000000000000002":{"vendor":"LIO-ORG,disk","size":"64M","path_groups":null}}`
	if string(got) != want {
		t.Errorf("parseMultipath() =\n%s\nwant\n%s", got, want)
	}
}

func FuzzLVM(f *testing.F) {
	f.Add([]byte(`{"report":[{"vg":[{"vg_name":"shared","pv_count":1,"lv_count":"0","vg_attr":"wz--ns","vg_size":"<10.00g","vg_free":"0 "}]}],"log":[{"log_seq_num":"1","log_type":"error","log_message":"Skipping","log_errno":5,"log_ret_code":"-1"}]}`))
	f.Add([]byte(`{"report":[{"pv":[{"pv_name":"/dev/sda","pv_size":"1g"}]}]} trailing`))
	f.Add([]byte(`{"report":[{"vg":[{"pv_count":""}]}]}`))
	f.Fuzz(func(t *testing.T, out []byte) {
		r, err := parseLVM(out)
		if err != nil && (r.pvs != nil || r.vgs != nil || r.log != nil) {
			t.Fatalf("%q: %v, and yet %+v", out, err, r)
		}
	})
}

func FuzzCeph(f *testing.F) {
	f.Add([]byte(`{"fsid":"6f3e5b0c-33a5-4bd8-8d3a-0b6f1f0d7c11","health":{"status":"HEALTH_OK"},"error":"ours"}`))
	f.Fuzz(func(t *testing.T, out []byte) {
		state, err := parseCeph(out)
		if err == nil && state.ServiceState != (api.ServiceState{}) {
			t.Fatalf("%q says %+v, which is ours to say", out, state.ServiceState)
		}
		if _, err := json.Marshal(state); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzHub(f *testing.F) {
	f.Add("hub port sta spd dev      sockfd local_busid\nhs  0000 006 003 00010002 000003 1-1\nhs  0001 004 000 00000000 000000 0-0\n", "192.0.2.22 3240 1-1.2\n")
	f.Add("x -1 6", "a b c d")
	f.Fuzz(func(t *testing.T, status, note string) {
		for _, port := range parseHub(status) {
			if port < 0 {
				t.Fatalf("%q has the port %d", status, port)
			}
		}
		d, ok := parseNote(note)
		if ok && (d.Address == "" || d.BusID == "" || strings.ContainsAny(d.Address+d.BusID, " \n")) {
			t.Fatalf("%q is %+v", note, d)
		}
	})
}
