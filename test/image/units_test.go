//go:build vm

package image_test

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/incusos/incusos/internal/sys"
)

// enabled is everything that is started because our preset says so.
var enabled = []string{
	"dbus-broker.service", "incus-os-modules.service", "incus-os-trial.service", "incus-osd.service",
	"systemd-resolved.service", "systemd-timesyncd.service",
}

// testPresets: the first file that names a unit decides (systemd.preset(5)), so
// ours must come first and leave nothing open.
func testPresets(t *testing.T, b *built) {
	presets := b.merged.glob(t, "usr/lib/systemd/system-preset/*")
	if presets[0] != "usr/lib/systemd/system-preset/00-incus-os.preset" {
		t.Fatalf("%s comes before our own preset", presets[0])
	}
	for name, r := range b.others {
		if found := r.glob(t, "usr/lib/systemd/system-preset/*"); found[0] != presets[0] {
			t.Errorf("with %s, %s comes before our own preset", name, found[0])
		}
	}
	if found := b.merged.glob(t, "etc/systemd/system-preset/*"); len(found) > 0 {
		t.Errorf("%q come before our own preset", found)
	}
	var got []string
	closed := false
	for line := range strings.Lines(b.merged.read(t, presets[0])) {
		switch verb, unit, _ := strings.Cut(strings.TrimSpace(line), " "); {
		case verb == "enable" && !closed:
			got = append(got, unit)
		case verb == "disable" && unit == "*":
			closed = true
		}
	}
	slices.Sort(got)
	if !closed || !slices.Equal(got, enabled) {
		t.Errorf("the preset enables %q and then disables all others: %v; want %q", got, closed, enabled)
	}
}

// starts lists what /usr and the defaults of /etc start beyond the preset: what
// systemd itself brings with it. "also" of an enabled unit is here too.
const starts = `
	cryptsetup.target integritysetup.target veritysetup.target remote-cryptsetup.target remote-veritysetup.target
	dev-hugepages.mount dev-mqueue.mount run-lock.mount tmp.mount var-lib-machines.mount
	sys-fs-fuse-connections.mount sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount
	dbus.socket systemd-bootctl.socket systemd-creds.socket systemd-hostnamed.socket systemd-importd.socket
	systemd-initctl.socket systemd-journald-dev-log.socket systemd-journald.socket systemd-networkd.socket
	systemd-pcrextend.socket systemd-sysext.socket systemd-udevd-control.socket systemd-udevd-kernel.socket
	kmod-static-nodes.service
	systemd-ask-password-console.path systemd-battery-check.service systemd-bsod.service
	systemd-hibernate-clear.service systemd-journal-flush.service systemd-journald.service systemd-logind.service
	systemd-machine-id-commit.service systemd-modules-load.service systemd-network-generator.service
	systemd-networkd-wait-online.service systemd-pcrmachine.service systemd-pcrphase-initrd.service
	systemd-pcrphase-sysinit.service systemd-pcrphase.service systemd-random-seed.service systemd-repart.service
	systemd-sysctl.service systemd-sysusers.service systemd-tmpfiles-setup-dev-early.service
	systemd-tmpfiles-setup-dev.service systemd-tmpfiles-setup.service systemd-tpm2-setup-early.service
	systemd-tpm2-setup.service systemd-udev-trigger.service systemd-udevd.service
	systemd-tmpfiles-clean.timer
`

// developers is what images for them start besides.
const developers = "incus-os-dev-shell.service"

// testStarts reads the links that make units start. Those to units that are not
// there do nothing; they are reported too, because what puts the unit back is
// not our choice.
func testStarts(t *testing.T, b *built) {
	allowed := append(strings.Fields(starts), enabled...)
	if b.dev {
		allowed = append(allowed, developers)
	}
	for what, r := range b.systems() {
		for _, root := range []string{"usr/lib/systemd/system", "etc/systemd/system"} {
			for _, kind := range []string{"wants", "requires", "upholds"} {
				for _, link := range r.glob(t, root+"/*."+kind+"/*") {
					unit := path.Base(link)
					switch {
					case !r.has("usr/lib/systemd/system/"+unit) && !r.has("etc/systemd/system/"+unit):
						t.Errorf("%s: %s would start a unit that is not there", what, link)
					case !slices.Contains(allowed, unit):
						t.Errorf("%s: %s starts a unit that is in no list", what, link)
					}
				}
			}
		}
	}
}

// testUnits asks systemd what it thinks of the units that are ours.
func testUnits(t *testing.T, b *built) {
	verify := func(r tree, units []string, expected *regexp.Regexp) {
		if len(units) == 0 {
			t.Fatal("found no units of ours; this test looks in the wrong place")
		}
		var said strings.Builder
		c := b.command("/usr/bin/systemd-analyze", append([]string{"verify", "--root=" + string(r), "--man=no", "--generators=no", "--recursive-errors=no"}, units...)...)
		c.Env, c.Stdout, c.Stderr = []string{"SYSTEMD_LOG_COLOR=0"}, &said, &said
		_, err := sys.Real().Exec.Run(t.Context(), c)
		findings := 0
		for line := range strings.Lines(said.String()) {
			if !expected.MatchString(line) {
				findings++
				t.Errorf("systemd-analyze: %s", strings.TrimSpace(strings.ReplaceAll(line, string(r), "")))
			}
		}
		if err != nil && said.Len() == 0 {
			t.Error(err)
		}
	}
	ours := append(unitsOf(t, "mkosi.extra"), unitsOf(t, "mkosi.images/incus/mkosi.extra")...)
	// To reload lxcfs is what would need the program; nobody does.
	verify(b.merged, append(ours, "incus.socket", "lxcfs.service"), regexp.MustCompile(`lxcfs.service: Command /bin/kill is not executable`))
	// Theirs come first in the order of starting, whether or not Incus is merged.
	for name, r := range b.others {
		if units := unitsOf(t, "mkosi.images/"+name+"/mkosi.extra"); len(units) > 0 {
			verify(r, units, regexp.MustCompile(`incus.service`))
		}
	}
	// They lie in the /usr that the initrd mounts.
	verify(b.initrd, unitsOf(t, "mkosi.images/initrd/mkosi.extra"), regexp.MustCompile(`Command /sysusr/usr/bin/(incus-osd|swtpm) is not executable`))
	for _, file := range []string{"usr/bin/incus-osd", "usr/bin/swtpm", "usr/lib/x86_64-linux-gnu/swtpm/libswtpm_libtpms.so.0", "usr/lib/modules/*/kernel/drivers/char/tpm/tpm_vtpm_proxy.ko*"} {
		if len(b.base.glob(t, file)) == 0 {
			t.Errorf("the initrd would look for %s in /usr, which is not there", file)
		}
	}
}

// unitsOf returns the units, also those of which we have only a part, that a
// directory of the image's definitions brings.
func unitsOf(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join("../../image", dir, "usr/lib/systemd/system"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var units []string
	for _, e := range entries {
		if unit := strings.TrimSuffix(e.Name(), ".d"); path.Ext(unit) != ".wants" && path.Ext(unit) != ".requires" {
			units = append(units, unit)
		}
	}
	return units
}

// testUnitAccounts: a unit that names an account which is not there fails only
// when it is started.
func testUnitAccounts(t *testing.T, b *built) {
	for what, r := range b.systems() {
		for kind, file := range map[string]string{"User": "passwd", "Group": "group", "SocketGroup": "group", "SocketUser": "passwd"} {
			accounts := r.table(t, "etc/"+file)
			for _, unit := range r.glob(t, "usr/lib/systemd/system/*.*") {
				real, ok := r.resolve(unit)
				if info, err := os.Stat(r.path(real)); !ok || err != nil || !info.Mode().IsRegular() {
					continue // a directory beside a unit, or a link that masks one
				}
				for _, name := range r.setting(t, path.Base(unit), kind) {
					if _, ok := accounts[name]; !ok && !strings.Contains(name, "%") && !isNumber(name) && !r.dynamic(t, unit) && !r.sysuser(t, name) {
						t.Errorf("%s: %s has %s=%s, and there is no such account", what, unit, kind, name)
					}
				}
			}
		}
	}
}

func isNumber(s string) bool { return strings.Trim(s, "0123456789") == "" }

func (r tree) dynamic(t *testing.T, unit string) bool {
	t.Helper()
	return slices.Contains(r.setting(t, path.Base(unit), "DynamicUser"), "yes")
}

// sysuser reports whether systemd-sysusers makes an account at boot.
func (r tree) sysuser(t *testing.T, name string) bool {
	t.Helper()
	return slices.ContainsFunc(r.glob(t, "usr/lib/sysusers.d/*.conf"), func(file string) bool {
		return regexp.MustCompile(`(?m)^[ug]!?\s+` + regexp.QuoteMeta(name) + `\s`).MatchString(r.read(t, file))
	})
}

// setting returns the values of a setting of a unit and its drop-ins in the order
// systemd reads them; an empty one forgets those before it.
func (r tree) setting(t *testing.T, unit, key string) []string {
	t.Helper()
	var values []string
	dir := "usr/lib/systemd/system/" + unit
	for _, name := range append([]string{dir}, r.glob(t, dir+".d/*.conf")...) {
		for line := range strings.Lines(r.read(t, name)) {
			switch name, value, ok := strings.Cut(strings.TrimSpace(line), "="); {
			case !ok || name != key:
			case value == "":
				values = nil
			default:
				values = append(values, value)
			}
		}
	}
	return values
}
