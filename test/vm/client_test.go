//go:build vm

package vm_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/incusos/incusos/internal/image"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/vm"
	"github.com/incusos/incusos/test/debian"
)

// debianClient has Debian's own `incus` look at a machine and change it, as three
// people: one whom Incus trusts, one whom it trusts with a project, and one whom it
// does not know. What each command of it prints is test/client's to say in full.
func debianClient(t *testing.T, r *vm.Running, tree debian.Tree, id vm.Identity) {
	operator := debian.Client{Tree: tree, Dir: t.TempDir(), Conf: id.Dir}
	ctx := within(t, r, 2*time.Minute)
	if err := operator.Join(ctx, fmt.Sprintf("https://127.0.0.1:%d", r.Port)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	all := append(append(realReads(), realChanges()...), debian.Refused()...)
	for _, s := range all {
		if err := s.Run(within(t, r, time.Minute), operator); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d commands in %v", len(all), time.Since(began).Round(100*time.Millisecond))
	archive, err := os.Stat(filepath.Join(operator.Dir, "machine.tar.gz"))
	if err != nil || archive.Size() < 1000 {
		t.Errorf("the backup is %+v, %v; want an archive", archive, err)
	}
	others(t, r, operator)
}

// others are refused, and nothing that they tried reaches the machine.
func others(t *testing.T, r *vm.Running, operator debian.Client) {
	ctx := within(t, r, time.Minute)
	restricted, err := operator.As(newIdentity(t).Dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := operator.TrustRestricted(ctx, restricted.Conf+"/client.crt"); err != nil {
		t.Fatal(err)
	}
	unknown, err := operator.As(newIdentity(t).Dir)
	if err != nil {
		t.Fatal(err)
	}
	before, err := operator.Command(ctx, "query", "/os/1.0/audit")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(restricted.TryAll(ctx, debian.SaysRestricted), unknown.TryAll(ctx, debian.SaysUnknown)); err != nil {
		t.Error(err)
	}
	after, err := operator.Command(ctx, "query", "/os/1.0/audit")
	if err != nil || after != before {
		t.Errorf("something of this came to the machine (%v); its log was:\n%sand is:\n%s", err, before, after)
	}
}

// realReads are what shows something of the machine, by the words that only a
// running one has.
func realReads() []debian.Step {
	return []debian.Step{
		{Do: "show", Out: `^  os_name: IncusOS$`},
		{Do: "show -f json", Out: `^ +"system_is_ready": true,$`},
		{Do: "info", Out: `(?s)^OS: IncusOS 20\d{10}$.*^  incus \(7\.0\.2 \[20\d{10}\]\)$`},
		{Do: "application list -f csv", Out: `^incus$`},
		{Do: "application show incus", Out: `^  friendly_version: 7\.0\.2 \[20\d{10}\]$`},
		{Do: "debug kernel", Out: `(?s)^Kernel version: 6\.12\..*│ zfs .*│ YES`},
		{Do: "debug log -n 20", Out: `^\[20\d\d/\d\d/\d\d \d\d:\d\d:\d\d UTC\] `},
		{Do: "debug log -u incus.service -b 0 -n 1", Out: `\A\[.*\] .*\n\z`},
		{Do: "debug processes", Out: `/incus-osd`},
		{Do: "debug report", Out: `│ incusos_pool_online +│ local +│`},
		{Do: "debug secureboot event-log", Out: `^event_log:$`},
		{Do: "service list -f csv", Out: `(?s)\Aiscsi\nlvm\n.*\nusbip\n\z`},
		{Do: "service show iscsi", Out: `^  enabled: false$`},
		{Do: "system fallback-listener show", Out: `^  active: false$`},
		{Do: "system kernel show", Out: `^config: \{\}$`},
		{Do: "system kernel info", Out: `(?s)^Zram swap:$.*Compression ratio:`},
		{Do: "system logging show", Out: `^  syslog:$`},
		{Do: "system network show", Out: `^ +- 10\.0\.2\.15/24$`},
		{Do: "system network info", Out: `│ routable │ [0-9a-f:]{17} │ 1500 │`},
		{Do: "system resources show", Out: `^  architecture: x86_64$`},
		{Do: "system resources info", Out: `^System:$`},
		{Do: "system security show", Out: `(?s)^  secure_boot_enabled: true$.*^  tpm_status: ok$`},
		{Do: "system storage show", Out: `(?s)^config:$.*^      name: local$.*^state:$`},
		{Do: "system storage info", Out: `(?s)│ /dev/disk/by-id/virtio-disk │ .*│ local │ zfs-raid0 │ ONLINE │ available `},
		{Do: "system backup machine.tar.gz"},
	}
}

// realChanges change what a kernel and services of the machine hold, and take it
// back.
func realChanges() []debian.Step {
	return []debian.Step{
		{Do: "system kernel edit", In: "config: {memory: {persistent_hugepages: 8}, network: {tcp_congestion_algorithm: bbr}}"},
		{Do: "system kernel show", Out: `(?s)^    persistent_hugepages: 8$.*^    tcp_congestion_algorithm: bbr$`},
		{Do: "system kernel edit", In: "config: {cpu: {scaling_governor: fast}}", Err: `cpu.scaling_governor: `},
		{Do: "system kernel edit", In: "confi: {}", Err: `confi: is unknown; want one of config, state`},
		{Do: "system kernel edit", In: "config: {}"},
		{Do: "system logging edit", In: "config: {journal: {max_size: 256MiB}}"},
		{Do: "system logging show", Out: `max_size: 256MiB$`},
		{Do: "system logging edit", In: "config: {}"},
		{Do: "system network edit", In: "config: {confirmation_timeout: 5m, dns: {search_domains: [example.net]}}"},
		{Do: "system network confirm"},
		{Do: "system network flush-dns"},
		{Do: "system network show", Out: `^ +- example\.net$`},
		{Do: "system network edit", In: "config: {}"},
		{Do: "application edit incus", In: "config: {lxcfs: {load_average: true}}"},
		{Do: "application show incus", Out: `^    load_average: true$`}, // and stays, for the boots to come
		{Do: "service edit lvm", In: "config: {enabled: true, system_id: 1}", Err: "needs the application storage"},
		{Do: "system security retrieved"},
	}
}

func openTree(t *testing.T) debian.Tree {
	t.Helper()
	b := &image.Builder{Exec: sys.Real().Exec, Cache: cache(t), Log: image.NewLog(os.Stderr, filepath.Join(cache(t), "debian.log"), false)}
	tree, err := debian.Open(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}
