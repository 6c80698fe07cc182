package service

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/incusos/incusos/api"
)

var update = flag.Bool("update", false, "write testdata/rendered.golden anew")

// TestRendered compares every file that services write with testdata/rendered.golden,
// which reviewers read as the files of a machine.
func TestRendered(t *testing.T) {
	var b strings.Builder
	show := func(title string, files map[string]file) {
		fmt.Fprintf(&b, "== %s ==\n", title)
		for _, name := range slices.Sorted(maps.Keys(files)) {
			fmt.Fprintf(&b, "-- %s %04o --\n%s", name, files[name].perm, files[name].content)
		}
	}
	show("iscsi, while a target without a password is recorded", map[string]file{iscsidConf: {renderAuth(api.ServiceISCSITarget{}), 0o600, true}})
	show("iscsi, while one with a password is", map[string]file{iscsidConf: {renderAuth(api.ServiceISCSITarget{Username: "operator", Password: "twelve-letters"}), 0o600, true}})
	show("multipath", map[string]file{
		multipathConf: {content: multipathSettings, perm: 0o644},
		wwidsFile:     {content: renderWWIDs([]string{"0x600508b4000156d7", "0x600140500000000000000000000000a1"}), perm: 0o600},
	})
	show("lvm", map[string]file{lvmLocal: {content: renderLVM(7), perm: 0o644}})
	show("ovn without certificates", renderOVN(api.ServiceOVNConfig{Database: "tcp:192.0.2.1:6642"}))
	show("ovn with certificates", renderOVN(api.ServiceOVNConfig{TLSClientCertificate: "certificate\n", TLSClientKey: "key\n", TLSCACertificate: "authority\n"}))
	fmt.Fprintln(&b, "== ovn, what Open vSwitch is told ==")
	for _, id := range renderIDs(api.ServiceOVNConfig{Database: "tcp:192.0.2.1:6642,tcp:[2001:db8::1]:6642", ICChassis: true, TunnelProtocol: "vxlan"}, "0-1-2", "machine", "2001:db8::10") {
		fmt.Fprintln(&b, id)
	}
	show("ceph", renderCeph(api.ServiceCephConfig{Clusters: map[string]api.ServiceCephCluster{"ceph": {
		FSID: "6f3e5b0c-33a5-4bd8-8d3a-0b6f1f0d7c11", Monitors: []string{"192.0.2.31", "192.0.2.32"},
		Keyrings:     map[string]api.ServiceCephKeyring{"incus": {Key: "QVFBPQ=="}},
		ClientConfig: map[string]string{"rbd_cache": "false", "log_to_stderr": "true"},
	}}}))
	const golden = "testdata/rendered.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil { //nolint:gosec // of the sources
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("what is rendered differs from %s; run `go test ./internal/service -update` and look at what changed:\n%s", golden, b.String())
	}
}
