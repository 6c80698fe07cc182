package incus

import (
	"archive/tar"
	"bytes"
	"fmt"
	"time"
)

// initScript is the first process of the container: it brings up the network
// and ends when it is asked to, which it writes down: SIGPWR is how Incus asks.
const initScript = `#!/bin/sh
trap 'echo asked >/root/end; exit 0' PWR
trap 'exit 0' TERM
ip link set lo up
udhcpc -i eth0 -s /etc/dhcp &
while :; do
	sleep 3600 &
	wait $!
done
`

// dhcpScript is what udhcpc calls with what it was told.
const dhcpScript = `#!/bin/sh
case $1 in
deconfig) ip link set $interface up ;;
bound | renew) ip addr replace $ip/$mask dev $interface ;;
esac
`

// Image returns a container image of a static busybox. The architecture is one
// in the kernel's words, such as "x86_64".
func Image(busybox []byte, architecture string) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	now := time.Now()
	metadata := fmt.Sprintf("architecture: %s\ncreation_date: %d\nproperties:\n  description: busybox\n", architecture, now.Unix())
	entries := []struct {
		name, link, content string
		mode                int64
	}{
		{"metadata.yaml", "", metadata, 0o644},
		{"rootfs/", "", "", 0o755},
		{"rootfs/bin/", "", "", 0o755},
		{"rootfs/dev/", "", "", 0o755},
		{"rootfs/etc/", "", "", 0o755},
		{"rootfs/proc/", "", "", 0o755},
		{"rootfs/root/", "", "", 0o700},
		{"rootfs/run/", "", "", 0o755},
		{"rootfs/sbin/", "", "", 0o755},
		{"rootfs/sys/", "", "", 0o755},
		{"rootfs/tmp/", "", "", 0o1777},
		{"rootfs/bin/busybox", "", string(busybox), 0o755},
		{"rootfs/bin/cat", "busybox", "", 0o777},
		{"rootfs/bin/ip", "busybox", "", 0o777},
		{"rootfs/bin/sh", "busybox", "", 0o777},
		{"rootfs/bin/sleep", "busybox", "", 0o777},
		{"rootfs/bin/udhcpc", "busybox", "", 0o777},
		{"rootfs/bin/uname", "busybox", "", 0o777},
		{"rootfs/etc/dhcp", "", dhcpScript, 0o755},
		{"rootfs/sbin/init", "", initScript, 0o755},
	}
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Linkname: e.link, Mode: e.mode, Size: int64(len(e.content)), ModTime: now, Format: tar.FormatUSTAR}
		switch {
		case e.link != "":
			h.Typeflag = tar.TypeSymlink
		case e.name[len(e.name)-1] == '/':
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("writing %s: %w", e.name, err)
		}
		if _, err := w.Write([]byte(e.content)); err != nil {
			return nil, fmt.Errorf("writing %s: %w", e.name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
