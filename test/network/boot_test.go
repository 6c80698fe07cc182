//go:build vm

package network_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/incusos/incusos/internal/sys"
)

// inGuest is the variable of the environment that tells the program in the
// machine that it is there. It holds which scenarios are asked for.
const inGuest = "INCUSOS_NETWORK_GUEST"

// boot is the first process of the machine. It puts a system together of the
// image's /usr with the programs of Incus' extension, and becomes systemd.
func boot() {
	err := assemble(context.Background())
	if err == nil {
		err = switchRoot()
	}
	fmt.Fprintln(os.Stderr, "@@ cannot boot:", err)
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF) // the host sees that nothing came
}

const root = "/sysroot"

func assemble(ctx context.Context) error {
	for _, m := range [][3]string{{"devtmpfs", "/dev", "devtmpfs"}, {"proc", "/proc", "proc"}, {"sysfs", "/sys", "sysfs"}} {
		if err := errors.Join(os.MkdirAll(m[1], 0o755), mount(m[0], m[1], m[2], 0, "")); err != nil && !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	if err := os.Symlink("/usr/bin/kmod", "/modprobe"); err != nil {
		return err
	}
	if _, err := sys.Real().Exec.Run(ctx, sys.Command("/modprobe", "--all", "virtio_blk", "erofs", "overlay")); err != nil {
		return err
	}
	for serial, at := range map[string]string{"usr": "/layer/usr", "incus": "/layer/incus"} {
		device, err := erofs(serial)
		if err != nil {
			return err
		}
		if err := errors.Join(os.MkdirAll(at, 0o755), mount(device, at, "erofs", unix.MS_RDONLY, "")); err != nil {
			return err
		}
	}
	return fill()
}

// erofs returns the partition with a file system of that kind on the disk with a
// serial number.
func erofs(serial string) (string, error) {
	disks, err := filepath.Glob("/sys/block/vd*")
	if err != nil {
		return "", err
	}
	for _, disk := range disks {
		s, _ := os.ReadFile(filepath.Join(disk, "serial"))
		if string(bytes.Trim(s, "\x00\n ")) != serial {
			continue
		}
		partitions, err := filepath.Glob(filepath.Join(disk, filepath.Base(disk)+"*"))
		if err != nil {
			return "", err
		}
		for _, p := range partitions {
			if name := filepath.Join("/dev", filepath.Base(p)); isErofs(name) {
				return name, nil
			}
		}
	}
	return "", fmt.Errorf("no partition of the disk %q among %q is an erofs", serial, disks)
}

// isErofs looks for the mark of the superblock.
func isErofs(name string) bool {
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	var mark [4]byte
	_, err = f.ReadAt(mark[:], 1024)
	return err == nil && mark == [4]byte{0xe2, 0xe1, 0xf5, 0xe0}
}

// fill makes the root directory.
func fill() error {
	if err := errors.Join(os.MkdirAll(root, 0o755), mount("root", root, "tmpfs", 0, "mode=755")); err != nil {
		return err
	}
	for _, dir := range []string{"usr", "etc", "dev", "proc", "sys", "run", "tmp", "var", "root"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	for _, link := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+link, filepath.Join(root, link)); err != nil {
			return err
		}
	}
	if err := mount("usr", root+"/usr", "overlay", unix.MS_RDONLY, "lowerdir=/layer/incus/usr:/layer/usr"); err != nil {
		return err
	}
	for _, dir := range []string{"upper", "work"} {
		if err := os.MkdirAll(root+"/var/etc/"+dir, 0o755); err != nil {
			return err
		}
	}
	layers := "lowerdir=" + root + "/usr/share/factory/etc,upperdir=" + root + "/var/etc/upper,workdir=" + root + "/var/etc/work"
	if err := mount("etc", root+"/etc", "overlay", 0, layers); err != nil {
		return err
	}
	program, err := os.ReadFile("/network.test")
	if err != nil {
		return err
	}
	run, err := asked()
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(root+"/network.test", program, 0o755),
		os.WriteFile(root+"/etc/machine-id", []byte("0123456789abcdef0123456789abcdef\n"), 0o444),
		os.WriteFile(root+"/etc/systemd/system/network-test.service", fmt.Appendf(nil, unit, run), 0o644),
	)
}

// unit runs the scenarios and switches the machine off.
const unit = `[Unit]
Wants=dbus.socket systemd-networkd.service systemd-resolved.service
After=basic.target dbus.socket systemd-networkd.service
SuccessAction=poweroff-force
FailureAction=poweroff-force

[Service]
Type=oneshot
Environment=INCUSOS_NETWORK_GUEST=1 HOME=/root
ExecStart=/network.test -test.v -test.timeout=60m -test.run=%s
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
`

func switchRoot() error {
	for _, dir := range []string{"/dev", "/proc", "/sys"} {
		if err := mount(dir, root+dir, "", unix.MS_MOVE, ""); err != nil {
			return err
		}
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	if err := errors.Join(unix.Chroot("."), os.Chdir("/")); err != nil {
		return err
	}
	return unix.Exec("/usr/lib/systemd/systemd", []string{"systemd"}, []string{"TERM=linux"})
}

func mount(source, target, kind string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mounting %s on %s: %w", source, target, err)
	}
	return nil
}

// asked is what the command line of the kernel says of the scenarios.
func asked() (string, error) {
	b, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "", err
	}
	for word := range strings.FieldsSeq(string(b)) {
		if v, ok := strings.CutPrefix(word, "incusos.run="); ok {
			return v, nil
		}
	}
	return "", errors.New("the command line does not say what to run")
}
