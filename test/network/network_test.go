//go:build vm

// Package network_test applies network configurations with the real programs:
// systemd-networkd, systemd-resolved, nftables and the kernel of the built image.
//
// The test starts one virtual machine and is itself the program that runs in it.
// Four cards of the machine lead over cables to four more, which are in a network
// namespace and are the outside world: switches, a DHCP server, peers. The rest
// of the system is that of the image, but for our daemon: the test takes its
// place, made of the same parts (package daemon, Wire).
//
//	network_test.go  on the host: start the machine, pull cables, repeat what it says
//	boot_test.go     in the machine: from the kernel to systemd
//	guest_test.go    in the machine: run scenarios, change the configuration
//	world_test.go    in the machine: what is outside
//	reach_test.go    in the machine: who reaches whom
//	the others       scenarios
//
// Package test/vm looks at the whole machine instead, from the firmware on.
package network_test

import (
	"bytes"
	"cmp"
	"context"
	"debug/pe"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/incusos/incusos/internal/image"
	"github.com/incusos/incusos/internal/vm"
)

// A scenario is run in the machine.
type scenario struct {
	name string
	run  func(t *testing.T, g *guest)
}

// scenarios begin and end with a machine that has the default document.
func scenarios() []scenario {
	return []scenario{
		{"Default", defaultDocument},
		{"Static", staticAddresses},
		{"VLANs", vlansWithoutFlap},
		{"VLANsWithoutServer", vlansWithoutServer},
		{"ActiveBackup", activeBackup},
		{"LACP", lacp},
		{"WireGuard", wireGuard},
		{"Firewall", firewall},
		{"Jumbo", jumboFrames},
		{"Container", containerInVLAN},
		{"BridgeTakenBack", bridgeTakenBack},
		{"Macvlan", macvlanOnCard},
		{"MissingCard", missingCard},
		{"BackToDefault", defaultDocument},
	}
}

func TestMain(m *testing.M) {
	if os.Getpid() == 1 {
		boot()
	}
	os.Exit(m.Run())
}

func TestNetwork(t *testing.T) {
	if os.Getenv(inGuest) != "" {
		runGuest(t)
		return
	}
	r := startMachine(t)
	go r.Console.Follow(t.Context(), func(l vm.Line) { obey(t.Context(), r, l.Text) })
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			done, err := r.Console.Expect(t.Context(), time.Minute, regexp.MustCompile(`@@ `+s.name+` (ok|failed|skipped)`))
			if err != nil {
				t.Fatal(err)
			}
			if done.Groups[1] != "ok" {
				t.Errorf("%s in the machine:\n%s", done.Groups[1], r.Console.Tail(80))
			}
		})
	}
	if err := r.Wait(t.Context(), 20*time.Second); err != nil {
		t.Error(err)
	}
}

// cableOrder is how the guest asks for a cable to be pulled out or put back.
var cableOrder = regexp.MustCompile(`@@ cable (\d) (on|off)`)

func obey(ctx context.Context, r *vm.Running, line string) {
	m := cableOrder.FindStringSubmatch(line)
	if m == nil {
		return
	}
	for _, end := range []string{"card", "port"} {
		_ = r.Monitor.Execute(ctx, "set_link", map[string]any{"name": end + m[1], "up": m[2] == "on"}, nil) // the guest sees whether it was done
	}
}

// cards is how many the machine has, and the world.
const cards = 4

// mac is the address of a card, from 1 on, of the machine (1) or the world (2).
func mac(side, n int) string { return fmt.Sprintf("52:54:00:00:%02x:%02x", side, n) }

func startMachine(t *testing.T) *vm.Running {
	t.Helper()
	built, err := image.Latest(input(t, "INCUSOS_IMAGE_DIR", "image"))
	if err != nil {
		t.Fatal(err)
	}
	kernel, initrd := parts(t, built.UKI)
	o := vm.Options{Tools: toolsTree(t), Cache: cache(t), Disks: []vm.Disk{{Name: "unused", Size: 1 << 20}}, Memory: 2048}
	m, err := vm.Create(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	d := vm.Direct{Kernel: filepath.Join(m.Dir(), "kernel"), Initrd: filepath.Join(m.Dir(), "initrd")}
	d.CommandLine = "console=ttyS0 rdinit=/network.test panic=-1 audit=0 loglevel=1 systemd.show_status=no systemd.gpt_auto=no systemd.unit=network-test.service incusos.run=" + only()
	for n := 1; n <= cards; n++ {
		d.Devices = append(d.Devices, cable(n)...)
	}
	for _, disk := range []struct{ name, file string }{{"usr", built.Disk}, {"incus", filepath.Join(filepath.Dir(built.Disk), "incus.raw")}} {
		d.Devices = append(d.Devices, "-drive", "if=none,id="+disk.name+",format=raw,readonly=on,file="+disk.file,
			"-device", "virtio-blk-pci,drive="+disk.name+",serial="+disk.name)
	}
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(own)
	if err != nil {
		t.Fatal(err)
	}
	write(t, d.Kernel, kernel)
	write(t, d.Initrd, append(pad(initrd), archive("network.test", program)...))
	r, err := m.StartDirect(context.WithoutCancel(t.Context()), d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Stop()
		if t.Failed() {
			keepLog(t, m)
		}
	})
	return r
}

// keepLog copies what the machine printed to where it outlives the test.
func keepLog(t *testing.T, m *vm.Machine) {
	t.Helper()
	dir := filepath.Join(cache(t), "test-network", "failed")
	b, err := os.ReadFile(filepath.Join(m.Dir(), "serial.log"))
	if err == nil {
		err = errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "serial.log"), b, 0o600))
	}
	t.Logf("the machine's words are in %s: %v", dir, err)
}

// only is which scenarios were asked for, all of them if nobody says.
func only() string { return cmp.Or(flag.Lookup("test.run").Value.String(), "TestNetwork") }

// cable is a card of the machine and one of the world, with a cable between. They
// say how fast they are, which LACP asks for.
func cable(n int) []string {
	var args []string
	for i, id := range []string{"card", "port"} {
		args = append(args, "-netdev", fmt.Sprintf("hubport,id=%s%d-end,hubid=%d", id, n, n),
			"-device", fmt.Sprintf("virtio-net-pci,id=%s%d,netdev=%s%d-end,mac=%s,speed=1000,duplex=full,romfile=", id, n, id, n, mac(i+1, n)))
	}
	return args
}

// parts are the kernel and the initrd in a UKI.
func parts(t *testing.T, uki string) (kernel, initrd []byte) {
	t.Helper()
	f, err := pe.Open(uki)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	section := func(name string) []byte {
		s := f.Section(name)
		if s == nil {
			t.Fatalf("%s has no section %s", uki, name)
		}
		b, err := s.Data()
		if err != nil {
			t.Fatal(err)
		}
		return b[:min(int(s.VirtualSize), len(b))]
	}
	return section(".linux"), section(".initrd")
}

// pad has b end where another archive can begin (Linux, early-userspace/buffer-format).
func pad(b []byte) []byte { return append(b, make([]byte, -len(b)&3)...) }

// archive is a cpio archive in the format newc with one program in it.
func archive(name string, program []byte) []byte {
	var b bytes.Buffer
	entry := func(name string, mode int, data []byte) {
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", 0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
		b.WriteString(name + "\x00")
		b.Write(make([]byte, -b.Len()&3))
		b.Write(data)
		b.Write(make([]byte, -b.Len()&3))
	}
	entry(name, 0o100755, program)
	entry("TRAILER!!!", 0, nil)
	return b.Bytes()
}

func write(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func input(t *testing.T, variable, inCache string) string {
	t.Helper()
	name := os.Getenv(variable)
	if name == "" {
		name = filepath.Join(cache(t), inCache)
	}
	if _, err := os.Stat(name); err != nil {
		t.Fatalf("%v; run `make image`, or let %s say where it is", err, variable)
	}
	return name
}

func toolsTree(t *testing.T) string {
	t.Helper()
	tree, err := (&image.Builder{Cache: cache(t)}).ToolsDir()
	if err != nil {
		t.Fatal(err)
	}
	return input(t, "INCUSOS_TOOLS", filepath.Base(tree))
}

func cache(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("INCUSOS_CACHE"); dir != "" {
		return dir
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "incusos")
}
