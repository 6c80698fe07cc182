//go:build vm

package image_test

import (
	"bufio"
	"context"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/internal/sys"
)

// firmwareTime is for what hangs: a translated firmware beside a translated machine
// took a minute for its first word.
const firmwareTime = 5 * time.Minute

// testVirtualMachine starts the QEMU of the application with the kinds of devices
// that Incus 7.0 gives every virtual machine, and waits for the firmware. Where
// the emulated processor has no virtualisation nothing else can show that none of
// QEMU's modules, ROMs and firmware is missing.
func testVirtualMachine(t *testing.T, b *built) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), firmwareTime)
	defer cancel()
	serial, console := io.Pipe()
	libraries := b.merged.path("usr/lib/x86_64-linux-gnu")
	c := sys.Command(b.merged.path("usr/lib64/ld-linux-x86-64.so.2"), append([]string{
		"--library-path", libraries + ":" + libraries + "/pulseaudio", b.merged.path("usr/bin/qemu-system-x86_64"),
	}, qemuArguments(b.merged, dir)...)...)
	var said strings.Builder
	c.Env = []string{"QEMU_MODULE_DIR=" + libraries + "/qemu"}
	c.Stdout, c.Stderr = console, &said
	p, err := sys.Real().Exec.Start(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- p.Wait()
		console.Close()
	}()
	seen := false
	for lines := bufio.NewScanner(serial); !seen && lines.Scan(); {
		seen = strings.Contains(lines.Text(), "BdsDxe")
	}
	cancel()
	go io.Copy(io.Discard, serial) //nolint:errcheck // lets QEMU end
	if err := <-ended; !seen {
		t.Errorf("the firmware of a virtual machine said nothing; QEMU ended with %v and said:\n%s", err, said.String())
	}
}

// qemuArguments has SPICE with its sound and USB, since Incus wants them for every
// machine, and a firmware that Incus picks by itself.
func qemuArguments(r tree, dir string) []string {
	return []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-L", r.path("usr/share/qemu"), "-L", r.path("usr/share/seabios"),
		"-machine", "q35", "-accel", "tcg", "-cpu", "max", "-m", "256",
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file=" + r.path("usr/share/OVMF/OVMF_CODE_4M.fd"),
		"-drive", "if=pflash,unit=1,format=raw,snapshot=on,file=" + r.path("usr/share/OVMF/OVMF_VARS_4M.fd"),
		"-serial", "stdio",
		"-spice", "unix=on,disable-ticketing=on,addr=" + filepath.Join(dir, "spice"), "-audiodev", "spice,id=sound",
		"-device", "virtio-vga", "-device", "virtio-keyboard-pci", "-device", "virtio-tablet-pci",
		"-device", "qemu-xhci", "-chardev", "spicevmc,id=usb,name=usbredir", "-device", "usb-redir,chardev=usb",
		"-device", "virtio-serial-pci", "-chardev", "spicevmc,id=agent,name=vdagent",
		"-device", "virtserialport,chardev=agent,name=com.redhat.spice.0",
		"-device", "virtio-balloon-pci", "-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng",
		"-device", "virtio-scsi-pci", "-device", "intel-hda", "-device", "hda-duplex,audiodev=sound",
		"-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=",
	}
}
