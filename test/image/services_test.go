//go:build vm

package image_test

import (
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/incusos/incusos/internal/sys"
)

// testExtensions: what is not below /usr is not merged, and what a package made when
// the image was built would be the same on every machine.
func testExtensions(t *testing.T, b *built) {
	for _, file := range append([]string{b.Incus}, b.Others...) {
		name := extensionName(file)
		entries, err := os.ReadDir(string(b.alone(name)))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Name() != "usr" {
				t.Errorf("the extension %s has /%s, which is never merged", name, e.Name())
			}
		}
		release := b.alone(name).read(t, "usr/lib/extension-release.d/extension-release."+name)
		for _, want := range []string{"ID=incusos", "SYSEXT_LEVEL=1"} {
			if !slices.Contains(strings.Fields(release), want) {
				t.Errorf("the extension %s does not say %s: %q", name, want, release)
			}
		}
	}
	if _, ok := b.others["storage"]; !ok {
		t.Error("there is no extension storage, which every build makes")
	}
}

// called is what internal/service calls, starts and loads, by the extension that
// brings it.
var called = map[string]struct{ programs, units, modules string }{
	"storage": {
		"iscsiadm iscsid nvme multipath multipathd pvs vgs vgchange lvmlockd lvmlockctl sanlock wdmd usbip thin_check btrfs mkfs.btrfs",
		"iscsid.service multipathd.service wdmd.service sanlock.service lvmlockd.service",
		"iscsi_tcp nvme-fabrics nvme-tcp nvme-fc dm-multipath dm-service-time dm-thin-pool dm-snapshot softdog vhci-hcd btrfs",
	},
	"ovn": {
		"ovs-vsctl ovs-vswitchd ovsdb-server ovsdb-tool ovn-controller",
		"ovsdb-server.service ovs-vswitchd.service",
		"openvswitch geneve vxlan",
	},
	"incus-ceph": {"ceph rbd rados", "", "rbd ceph libceph"},
}

func testServices(t *testing.T, b *built) {
	modules := b.base.read(t, b.base.glob(t, "usr/lib/modules/*")[0]+"/modules.dep")
	for name, r := range b.others {
		for program := range strings.FieldsSeq(called[name].programs) {
			if !r.has("usr/sbin/"+program) && !r.has("usr/bin/"+program) {
				t.Errorf("%s: there is no program %s", name, program)
			}
		}
		for unit := range strings.FieldsSeq(called[name].units) {
			if !r.has("usr/lib/systemd/system/" + unit) {
				t.Errorf("%s: there is no unit %s", name, unit)
				continue
			}
			if order := strings.Join(r.setting(t, unit, "Before"), " "); !slices.Contains(strings.Fields(order), "incus.service") {
				t.Errorf("%s: %s is stopped while Incus may need it: Before=%s", name, unit, order)
			}
			for _, command := range r.setting(t, unit, "ExecStart") {
				if program := strings.TrimLeft(strings.Fields(command)[0], "-@:+!"); !r.has(program) {
					t.Errorf("%s: %s starts %s, which is not there", name, unit, program)
				}
			}
		}
		for module := range strings.FieldsSeq(called[name].modules) {
			if !strings.Contains(modules, "/"+module+".ko") && !strings.Contains(modules, "/"+strings.ReplaceAll(module, "-", "_")+".ko") {
				t.Errorf("%s: there is no module %s", name, module)
			}
		}
	}
}

// testCeph runs the one program that is not a file alone: without a library or a
// module it says nothing before it is called on a machine.
func testCeph(t *testing.T, b *built) {
	r, ok := b.others["incus-ceph"]
	if !ok {
		t.Log("this build was not asked for incus-ceph")
		return
	}
	libraries := r.path("usr/lib/x86_64-linux-gnu")
	c := sys.Command(r.path("usr/lib64/ld-linux-x86-64.so.2"), "--library-path", libraries+":"+libraries+"/ceph",
		r.path(r.glob(t, "usr/bin/python3.*")[0]), r.path("usr/bin/ceph"), "--version")
	c.Env = []string{"PYTHONHOME=" + r.path("usr"), "PYTHONPATH=" + r.path("usr/lib/python3/dist-packages"), "PYTHONDONTWRITEBYTECODE=1"}
	out, err := sys.Real().Exec.Run(t.Context(), c)
	if err != nil || !strings.HasPrefix(string(out), "ceph version ") {
		t.Errorf("ceph --version prints %q, %v", out, err)
	}
}

// calls finds programs in a udev rule: those with a path, and those that are looked
// for in udev's own directory.
var calls = regexp.MustCompile(`(?:RUN|PROGRAM|IMPORT\{program\})\s*[+=:]*=\s*"([^" ]+)`)

// testUdevRules: what a rule calls that is not there is reported for every device,
// and nothing that an extension brings may attach or activate by itself.
func testUdevRules(t *testing.T, b *built) {
	for name, r := range b.others {
		for _, file := range b.alone(name).glob(t, "usr/lib/udev/rules.d/*.rules") {
			for _, found := range calls.FindAllStringSubmatch(r.read(t, file), -1) {
				program := found[1]
				if !path.IsAbs(program) {
					program = "usr/lib/udev/" + program
				}
				if !r.has(program) {
					t.Errorf("%s: %s calls %s, which is not there", name, path.Base(file), found[1])
				}
				if slices.Contains([]string{"systemctl", "iscsiadm", "vgchange", "pvscan", "lvm", "nvme", "kpartx"}, path.Base(program)) && !strings.HasSuffix(file, "60-multipath.rules") {
					t.Errorf("%s: %s calls %s: what is attached is incus-osd's to decide", name, path.Base(file), program)
				}
			}
		}
	}
}
