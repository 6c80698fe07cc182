//go:build vm

package client_test

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/incusos/incusos/test/debian"
)

// cases are what is tried, in this order: looking, changing, applications, what
// this release refuses, and what turns the machine off or makes it new.
func (m *machine) cases(t *testing.T, c debian.Client) []trial {
	return slices.Concat(plain(reads()), m.changes(t, c), m.applications(t), plain(debian.Refused()), m.ends(t))
}

func plain(steps []debian.Step) []trial {
	var all []trial
	for _, s := range steps {
		all = append(all, trial{Step: s})
	}
	return all
}

func reads() []debian.Step {
	return []debian.Step{
		{Do: "show", Out: `^  os_name: IncusOS$`},
		{Do: "show -f json", Out: `^ +"system_is_ready": true,$`},
		{Do: "info", Out: `(?s)^OS: IncusOS 202601010000$.*^  enp1s0: 192\.0\.2\.10/24$.*^  incus \(7\.0\.2 \[202601010000\]\)$.*^  Machine starts$` +
			`.*^  - Some encryption recovery keys have not been retrieved yet$`},
		{Do: "application list", Out: `│ incus │`},
		{Do: "application list -f csv", Out: `\Aincus\n\z`},
		{Do: "application show incus", Out: `^  friendly_version: 7\.0\.2 \[202601010000\]$`},
		{Do: "application show nothing", Err: `application "nothing": not found; /1.0/applications lists what is installed`},
		{Do: "debug kernel", Out: `(?s)^Kernel version: 6\.12\.0-pretend$.*^CPU baseline: x86-64-v3$.*│ zfs .*│ YES`},
		{Do: "debug log", Out: `^\[2026/01/01 12:00:03 UTC\] incusd: Incus is starting$`},
		{Do: "debug log -u incus-osd.service -b 0 -n 1", Out: `\A\[.*\] systemd: Started incus-osd\.service .*\n\z`},
		{Do: "debug log -b -1", Out: `incus-osd: Restarting$`},
		{Do: "debug log -u nothing.service"},
		{Do: "debug log -n many", Err: `entries: "many" is no number of entries; want one such as 100`},
		{Do: "debug processes", Out: ` /usr/bin/incus-osd$`},
		{Do: "debug report", Out: `│ incusos_pool_online +│ local +│`},
		{Do: "debug report -m uptime -f json", Out: `"metrics":\[\{"name":"incusos_uptime_seconds","value":60\}\]`},
		{Do: "debug secureboot event-log", Out: `^event_log:$`},
		{Do: "service list -f csv", Out: `(?s)\Aceph\niscsi\n.*\nusbip\n\z`},
		{Do: "service show iscsi", Out: `^  enabled: false$`},
		{Do: "service show nothing", Err: `service "nothing": not found; known are ceph, iscsi, `},
		{Do: "system fallback-listener show", Out: `^  active: false$`},
		{Do: "system kernel show", Out: `^config: \{\}$`},
		{Do: "system kernel info", Out: `(?s)^Zram swap:$.*Disk size: 2\.00GiB$.*Compression ratio: 4\.00$`},
		{Do: "system logging show", Out: `^  syslog:$`},
		{Do: "system network show", Out: `^        - 192\.0\.2\.10/24$`},
		{Do: "system network info", Out: `│ enp1s0 │ interface │ routable │ 02:00:00:00:00:01 │ 1500 │ +│ 192\.0\.2\.10/24 │ management │`},
		{Do: "system provider show", Out: `^  name: images$`},
		{Do: "system update show", Out: `^  needs_reboot: false$`},
		{Do: "system update check --force", Err: `no repository is set; name one as config.server_url of /1.0/system/provider`},
		{Do: "application check-update incus", Err: `no repository is set; name one as config.server_url of /1.0/system/provider`},
		{Do: "system resources show", Out: `^  architecture: x86_64$`},
		{Do: "system resources info", Out: `(?s)^System:$.*Pretend Machine`},
		{Do: "system security show", Out: `(?s)^    local: .*=$.*^  secure_boot_enabled: true$.*^  tpm_status: ok$`},
		{Do: "system storage show", Out: `(?s)^config:$.*^      name: local$.*^state:$`},
		{Do: "system storage info", Out: `(?s)^  Size: 25\.00GiB$.*│ /dev/disk/by-id/virtio-pretend0 │ .*│ virtio │ 64\.00GiB │ yes .*│ local │ zfs-raid0 │ ONLINE │ available `},
	}
}

// changes are what saves a setting.
func (m *machine) changes(t *testing.T, c debian.Client) []trial {
	pem, err := os.ReadFile(c.Conf + "/client.crt")
	must(t, err)
	governor := "root/sys/devices/system/cpu/cpufreq/policy0/scaling_governor"
	return []trial{
		{Step: debian.Step{Do: "system kernel edit", In: "config: {cpu: {scaling_governor: performance}, memory: {persistent_hugepages: 64}}"}, then: m.holds(governor, "performance\n")},
		{Step: debian.Step{Do: "system kernel show", Out: `^    scaling_governor: performance$`}},
		{Step: debian.Step{Do: "system kernel edit", In: "config: {cpu: {scaling_governor: ondemand}}", Err: `cpu.scaling_governor: "ondemand" is not there; this machine has performance, powersave`}},
		{Step: debian.Step{Do: "system kernel edit", In: "confi: {}", Err: `confi: is unknown; want one of config, state`}},
		{Step: debian.Step{Do: "system kernel edit", Err: `body: is empty; want a document in JSON`}},
		{Step: debian.Step{Do: "system kernel edit", In: "- cpu", Err: `body: is a list; want an object`}, then: m.holds(governor, "performance\n")},
		{Step: debian.Step{Do: "system logging edit", In: "config: {syslog: {address: '192.0.2.14:514', protocol: tcp, log_format: rfc5424}, journal: {max_size: 256MiB}}"}},
		{Step: debian.Step{Do: "system logging show", Out: `(?s)max_size: 256MiB$.*^  syslog_status: active$`}},
		{Step: debian.Step{Do: "system update edit", In: "config: {urgent_from: high, paused: true}"}}, // fields of ours
		{Step: debian.Step{Do: "system update show", Out: `(?s)^  paused: true$.*^  urgent_from: high$`}},
		{Step: debian.Step{Do: "system update edit", In: "config: {channel: testing, check_frequency: never}"}, then: m.holds("root/var/lib/incus-os/update.json", "testing")},
		{Step: debian.Step{Do: "system update edit", In: "config: {check_frequency: often}", Err: `config.check_frequency: "often" is no frequency`}},
		{Step: debian.Step{Do: "system provider edit", In: "config: {name: images, config: {server_url: 'https://updates.example.net/incusos'}}"},
			then: m.holds("root/var/lib/incus-os/provider.json", "updates.example.net")},
		{Step: debian.Step{Do: "system network edit", In: "config: {confirmation_timeout: 5m, dns: {search_domains: [example.net]}}"},
			then: m.holds("root/run/systemd/resolved.conf.d/20-incus-os.conf", "Domains=example.net")},
		{Step: debian.Step{Do: "system kernel edit", In: "config: {}", Err: `a change of system/network is waiting to be confirmed until `}},
		{Step: debian.Step{Do: "system network flush-dns"}},
		{Step: debian.Step{Do: "system network confirm"}, then: m.holds("root/var/lib/incus-os/network.json", "example.net")},
		{Step: debian.Step{Do: "system network edit", In: "config: {interfaces: [{name: lan, hwaddr: lan0, addresses: [dhcp]}]}", Err: `config.interfaces[0].addresses[0]: "dhcp" is no address`}},
		{Step: debian.Step{Do: "system network edit", In: "config: {}"}},
		{Step: debian.Step{Do: "system fallback-listener edit", In: fmt.Sprintf("config: {listen_address: '127.0.0.1:48443', trusted_client_certificates: [%q]}", pem)}},
		{Step: debian.Step{Do: "system fallback-listener show", Out: `(?s)^  listen_address: 127\.0\.0\.1:48443$.*BEGIN CERTIFICATE.*^  active: false$`}},
		{Step: debian.Step{Do: "service edit lvm", In: "config: {enabled: true, system_id: 1}"}},
		{Step: debian.Step{Do: "service show lvm", Out: `^  enabled: true$`}},
		{Step: debian.Step{Do: "service edit iscsi", In: "config: {enabled: true, targets: [{target: 'iqn.2026-01.org.example:locked', address: 192.0.2.20, username: operator, password: twelve-letters}]}"}},
		{Step: debian.Step{Do: "service show iscsi", Out: `^      state: LOGGED_IN$`}},
		{Step: debian.Step{Do: "service reset iscsi --force"}},
		{Step: debian.Step{Do: "service edit iscsi", In: "config: {enabled: true, targets: [{target: disk1, address: 192.0.2.20}]}",
			Err: `config.targets[0].target: "disk1" is no name of a target; want one such as "iqn.2026-01.org.example:disk1"`}},
		{Step: debian.Step{Do: `system storage encrypt-drive --force -d {"id":"/dev/disk/by-id/virtio-pretend0"}`, Err: "holds the system"}},
		{Step: debian.Step{Do: `system storage wipe-drive --force -d {"id":"/dev/vda"}`, Err: `id: "/dev/vda" is no name of a drive`}},
		{Step: debian.Step{Do: "system security edit", In: "config: {encryption_recovery_keys: []}", Err: "config.encryption_recovery_keys: is empty"}},
		{Step: debian.Step{Do: "system security edit", In: "config: {encryption_recovery_keys: [hello]}", Err: "config.encryption_recovery_keys[0]: has 5 characters; want 15 to 256"}},
		{Step: debian.Step{Do: "system security edit", In: "config: {encryption_recovery_keys: ['Zug um 7:42 nach Hamburg!']}"}},
		{Step: debian.Step{Do: "system security show", Out: `^    - Zug um 7:42 nach Hamburg!$`}},
		{Step: debian.Step{Do: "system security tpm-rebind --force", Err: "root is bound to the TPM as it should be; the next start unlocks it by itself"}},
		{Step: debian.Step{Do: "debug secureboot update", Err: "the archive holds no updates; want files such as db_4f1a.auth"}},
		{Step: debian.Step{Do: "system security retrieved"}, then: m.holds("root/var/lib/incus-os/security.json", "true")},
	}
}

func (m *machine) applications(t *testing.T) []trial {
	return []trial{
		{Step: debian.Step{Do: "application edit incus", In: "config: {lxcfs: {load_average: true}}"},
			then: m.holds("root/etc/systemd/system/lxcfs.service.d/50-incus-os.conf", "--enable-loadavg")},
		{Step: debian.Step{Do: "application show incus", Out: `^    load_average: true$`}},
		{Step: debian.Step{Do: "application add debug"}, tasks: true},
		{Step: debian.Step{Do: "application list -f csv", Out: `\Adebug\nincus\n\z`}},
		{Step: debian.Step{Do: "application add debug", Err: `application "debug" is installed already`}},
		{Step: debian.Step{Do: "application add nothing", Err: `this machine has no image of application "nothing"; it has those of debug, incus`}},
		{Step: debian.Step{Do: "application remove debug --force"}, tasks: true},
		{Step: debian.Step{Do: "application remove incus --force", Err: `application "incus" is what this machine is for and cannot be removed; a factory reset makes it as new`}},
		{Step: debian.Step{Do: "application list -f csv", Out: `\Aincus\n\z`}},
		{Step: debian.Step{Do: "application restart incus --force"}, tasks: true},
		{Step: debian.Step{Do: "application switch-version incus --force", Data: `{"version":"202512010000"}`}, tasks: true},
		{Step: debian.Step{Do: "application show incus", Out: `^  version: "202512010000"$`}},
		{Step: debian.Step{Do: "application switch-version incus --force", Data: `{"version":"202601010000"}`}, tasks: true},
		{Step: debian.Step{Do: "application debug incus", Data: `{"action":"get-logs"}`, Out: `\A\x1f`}},
		{Step: debian.Step{Do: "application debug incus", Err: `application "incus" knows no debug action ""; want "get-logs"`}},
		{Step: debian.Step{Do: "application backup incus incus.tar.gz"}, then: m.holds("files/incus.tar.gz", "\x1f\x8b")},
		{Step: debian.Step{Do: "application restore incus incus.tar.gz --force"}, tasks: true},
		{Step: debian.Step{Do: "application show incus", Out: `^  last_restored: "20`}},
		{Step: debian.Step{Do: "application factory-reset incus --force"}, tasks: true},
		{Step: debian.Step{Do: "application action incus", Data: "not json", Err: `body: is not JSON: line 1, column 2`}},
	}
}

// ends is what the machine goes down for.
func (m *machine) ends(t *testing.T) []trial {
	const down = "level=INFO msg="
	return []trial{
		{Step: debian.Step{Do: "system backup machine.tar.gz"}, then: m.holds("files/machine.tar.gz", "\x1f\x8b")},
		{Step: debian.Step{Do: "system backup machine.tar.gz", Err: "output file 'machine.tar.gz' already exists"}},
		{Step: debian.Step{Do: "system kernel edit", In: "config: {cpu: {scaling_governor: powersave}}"}},
		{Step: debian.Step{Do: "system restore machine.tar.gz --force -s macs", Err: `skip: "macs" is unknown; want some of encryption-recovery-keys, local-data-encryption-key, network-macs`}},
		{Step: debian.Step{Do: "system restore " + tooLong(t, m.path("files")) + " --force", Err: "502 Bad Gateway"}}, // Incus passes on 1 MiB
		{Step: debian.Step{Do: "application restore incus long.tar.gz --force", Err: "the archive cannot be read: what is compressed is no tar archive"}},
		{Step: debian.Step{Do: "system restore - --force", Err: "the backup is empty"}},
		{Step: debian.Step{Do: "system kernel show", Out: `^    scaling_governor: powersave$`}},
		{Step: debian.Step{Do: "system restore machine.tar.gz -s network-macs", In: "yes\n", Out: `provided backup\? \(yes/no\)`}, goes: down + "Restarting"},
		{Step: debian.Step{Do: "system kernel show", Out: `^    scaling_governor: performance$`}},
		{Step: debian.Step{Do: "system reboot --force"}, goes: down + "Restarting"},
		{Step: debian.Step{Do: "system poweroff --force"}, goes: down + `"Turning off"`},
		{Step: debian.Step{Do: "system suspend --force"}, goes: down + "Suspending"},
		{Step: debian.Step{Do: "system factory-reset --force", Data: `{"seeds":{"incus":{"apply_default":true}}}`, Err: `unknown field "apply_default"; did you mean "apply_defaults"?`}},
		{Step: debian.Step{Do: "system factory-reset --force", Data: `{"seeds":{"incus":{"apply_defaults":true}}}`}, goes: down + "Restarting",
			then: func(t *testing.T) {
				for _, partition := range []string{"vda9", "vda10"} {
					if _, err := os.Stat(m.path("root/sys/block/vda/" + partition)); err == nil {
						t.Errorf("after a factory reset, %s is still there", partition)
					}
				}
			}},
		{Step: debian.Step{Do: "show", Out: `^  system_is_ready: true$`}},
	}
}

// tooLong writes a gzip archive of 2 MiB and returns its name.
func tooLong(t *testing.T, dir string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := io.CopyN(w, rand.Reader, 2<<20)
	must(t, errors.Join(err, w.Close(), os.WriteFile(filepath.Join(dir, "long.tar.gz"), b.Bytes(), 0o600)))
	return "long.tar.gz"
}

// holds expects a file to have something in it.
func (m *machine) holds(file, what string) func(*testing.T) {
	return func(t *testing.T) {
		t.Helper()
		if b, err := os.ReadFile(m.path(file)); err != nil || !strings.Contains(string(b), what) {
			t.Errorf("%s holds %q, %v; want %q in it", file, b, err, what)
		}
	}
}

// A document is one that the client can show and edit.
type document struct {
	name    string // the command's words before the verb, then a slash and those after it
	refused string // what editing says; "" where it can be edited
}

func documents() []document {
	all := []document{
		{"application/incus", ""},
		{"system fallback-listener", ""},
		{"system kernel", ""},
		{"system logging", ""},
		{"system network", ""},
		{"system provider", ""},
		{"system security", ""},
		{"system storage", "storage" + debian.ByTheSeed},
		{"system update", ""},
	}
	for name := range strings.FieldsSeq("ceph iscsi lvm multipath netbird nvme ovn tailscale usbip") {
		all = append(all, document{"service/" + name, ""})
	}
	return all
}
