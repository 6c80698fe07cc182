package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/incusos/incusos/internal/image"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/vm"
)

// debianPackages make a server of a minimal Debian: what the image of IncusOS
// and its application ask for, without ZFS and encryption.
const debianPackages = "linux-image-amd64 initramfs-tools zstd systemd-sysv systemd-resolved systemd-timesyncd dbus udev " +
	"apparmor ca-certificates iproute2 nftables " +
	"incus dnsmasq-base genisoimage gdisk ovmf swtpm swtpm-tools virtiofsd"

// debianCommandLine is Debian's own, apart from the consoles of a server.
const debianCommandLine = "root=/dev/vda rw quiet console=tty0 console=ttyS0,115200"

const (
	debianKernel = "vmlinuz"
	debianInitrd = "initrd.img"
	preseeded    = "preseeded" // stands for a disk whose first boot is over
	debianLog    = "build.log"
)

// A debian is the machine that IncusOS is compared with.
type debian struct {
	machine *vm.Machine
	id      vm.Identity
}

func (d debian) name() string { return "Debian" }

func (d debian) start(ctx context.Context) (*vm.Running, error) {
	return d.machine.StartDirect(ctx, vm.Direct{
		Kernel:      filepath.Join(d.machine.Dir(), debianKernel),
		Initrd:      filepath.Join(d.machine.Dir(), debianInitrd),
		CommandLine: debianCommandLine,
	})
}

func (d debian) site(r *vm.Running) *vm.Site { return siteOf(r, d.id) }

// openDebian returns the machine with Debian, which it builds at first.
func openDebian(ctx context.Context, b *image.Builder, o vm.Options, id vm.Identity) (debian, error) {
	files := debianFiles(id)
	sum := sha256.New()
	fmt.Fprintln(sum, debianPackages)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintln(sum, name, files[name])
	}
	dir := filepath.Join(b.Cache, fmt.Sprintf("bench-debian-%x", sum.Sum(nil)[:6]))
	if _, err := os.Stat(filepath.Join(dir, preseeded)); err == nil {
		m, err := vm.Open(dir, o)
		return debian{m, id}, err
	}
	if err := os.RemoveAll(dir); err != nil {
		return debian{}, err
	}
	m, err := vm.Create(dir, o)
	if err != nil {
		return debian{}, err
	}
	d := debian{m, id}
	if err := d.build(ctx, b, files); err != nil {
		return d, fmt.Errorf("building a Debian to compare with: %w; its log is %s", err, filepath.Join(dir, debianLog))
	}
	if err := d.preseed(ctx); err != nil {
		return d, fmt.Errorf("first boot of the Debian to compare with: %w", err)
	}
	return d, nil
}

// debianFiles are what an administrator would write on such a server.
func debianFiles(id vm.Identity) map[string]string {
	pem := strings.ReplaceAll(strings.TrimSpace(string(id.PEM)), "\n", "\n    ")
	return map[string]string{
		"etc/hostname":                         "debian\n",
		"etc/fstab":                            "/dev/vda / ext4 rw,relatime 0 1\n",
		"etc/systemd/network/80-dhcp.network":  "[Match]\nType=ether\nKind=!*\n[Network]\nDHCP=yes\n",
		"etc/apt/preferences.d/incus.pref":     "Package: incus incus-base incus-client incus-agent src:incus\nPin: release n=trixie-backports\nPin-Priority: 900\n",
		"etc/systemd/system/preseed.service":   preseedUnit,
		"usr/sbin/policy-rc.d":                 "#!/bin/sh\nexit 101\n",
		"etc/initramfs-tools/conf.d/no-resume": "RESUME=none\n",
		"etc/preseed.yaml": `config:
  core.https_address: ":8443"
certificates:
- name: operator
  type: client
  certificate: |
    ` + pem + `
storage_pools:
- name: local
  driver: dir
networks:
- name: incusbr0
  type: bridge
  config:
    ipv4.address: 10.99.0.1/24
    ipv4.nat: "true"
    ipv6.address: none
profiles:
- name: default
  devices:
    root: {type: disk, path: /, pool: local}
    eth0: {type: nic, network: incusbr0}
`,
	}
}

const preseedUnit = `[Unit]
Description=Set Incus up
After=incus.socket network-online.target
Wants=network-online.target
ConditionPathExists=/etc/preseed.yaml
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'incus admin init --preseed </etc/preseed.yaml && mv /etc/preseed.yaml /etc/preseed.done && echo "bench: preseeded" >/dev/console'
StandardError=journal+console
[Install]
WantedBy=multi-user.target
`

// build makes the disk, and leaves kernel and initrd beside it.
func (d debian) build(ctx context.Context, b *image.Builder, files map[string]string) error {
	dir := d.machine.Dir()
	log, err := os.Create(filepath.Join(dir, debianLog))
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // only a log
	root := filepath.Join(dir, "root")
	r := runner{b.Exec, log}
	if err := r.debootstrap(ctx, b, root, files); err != nil {
		return err
	}
	for from, to := range map[string]string{"vmlinuz": debianKernel, "initrd.img": debianInitrd} {
		// They are links into /boot, relative ones.
		if err := r.run(ctx, "cp", "--dereference", filepath.Join(root, from), filepath.Join(dir, to)); err != nil {
			return err
		}
	}
	if err := r.run(ctx, "mkfs.ext4", "-q", "-F", "-d", root, d.machine.Disk(diskName)); err != nil {
		return err
	}
	return os.RemoveAll(root)
}

// A runner runs programs whose output belongs into a log.
type runner struct {
	exec sys.Runner
	log  *os.File
}

func (r runner) run(ctx context.Context, name string, args ...string) error {
	c := sys.Command(name, args...)
	c.Env = []string{"DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8"}
	c.Stdout, c.Stderr = r.log, r.log
	_, err := r.exec.Run(ctx, c)
	return err
}

func (r runner) debootstrap(ctx context.Context, b *image.Builder, root string, files map[string]string) error {
	main, security, err := b.Mirrors()
	if err != nil {
		return err
	}
	if err := r.run(ctx, "debootstrap", "--variant=minbase", "trixie", root, main); err != nil {
		return err
	}
	sources := ""
	for _, suite := range []string{"trixie", "trixie-updates", "trixie-backports"} {
		sources += "deb " + main + " " + suite + " main\n"
	}
	sources += "deb " + security + " trixie-security main\n"
	if err := writeTree(root, map[string]string{"etc/apt/sources.list": sources}); err != nil {
		return err
	}
	if err := writeTree(root, files); err != nil {
		return err
	}
	steps := [][]string{
		{"apt-get", "-q", "update"},
		append([]string{"apt-get", "install", "-q", "-y", "--no-install-recommends"}, strings.Fields(debianPackages)...),
		{"apt-get", "clean"},
		{"systemctl", "enable", "systemd-networkd", "systemd-resolved", "preseed"},
		{"passwd", "--lock", "root"},
	}
	for _, step := range steps {
		if err := r.run(ctx, "chroot", append([]string{root}, step...)...); err != nil {
			return err
		}
	}
	for _, name := range []string{"usr/sbin/policy-rc.d", "etc/machine-id"} {
		if err := os.Remove(filepath.Join(root, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func writeTree(root string, files map[string]string) error {
	for name, text := range files {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil { //nolint:gosec // a root directory
			return err
		}
		mode := fs.FileMode(0o644)
		if strings.HasPrefix(text, "#!") {
			mode = 0o755
		}
		if err := os.WriteFile(name, []byte(text), mode); err != nil {
			return err
		}
	}
	return nil
}

// preseed boots for the first time, which is not measured.
func (d debian) preseed(ctx context.Context) error {
	r, err := d.start(ctx)
	if err != nil {
		return err
	}
	defer r.Stop()
	if _, err := r.Console.Expect(ctx, firstBootTime, setUp); err != nil {
		return err
	}
	if err := d.site(r).Trusted(ctx); err != nil {
		return err
	}
	if err := r.PowerOff(ctx, offTime); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(d.machine.Dir(), preseeded), nil, 0o600)
}
