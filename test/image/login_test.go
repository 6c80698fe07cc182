//go:build vm

package image_test

import (
	"bytes"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
)

// Programs that ask for a password or start a shell for whoever is there, and
// what starts them. A shell itself stays: scripts need it.
var loginPaths = []string{
	"usr/bin/login", "usr/bin/su", "usr/bin/sudo", "usr/bin/newgrp", "usr/bin/sg", "usr/bin/passwd",
	"usr/bin/chsh", "usr/bin/chfn", "usr/bin/ssh*", "usr/bin/dropbear*", "usr/bin/telnet*", "usr/bin/screen", "usr/bin/tmux*",
	"usr/sbin/*getty", "usr/sbin/sulogin", "usr/sbin/sshd*", "usr/sbin/dropbear", "usr/sbin/unix_chkpwd",
	"usr/lib/systemd/systemd-sulogin-shell",
	"usr/lib/systemd/system/*getty*", "usr/lib/systemd/system/autovt@.service", "usr/lib/systemd/system/debug-shell.service",
	"usr/lib/systemd/system/ssh*.service", "usr/lib/systemd/system/ssh*.socket",
	"usr/lib/systemd/system/*.wants/*getty*", "usr/lib/systemd/system/*.wants/debug-shell*",
	"usr/lib/systemd/system-generators/systemd-debug-generator",
	"usr/lib/systemd/system-generators/systemd-getty-generator",
	"usr/lib/systemd/system-generators/systemd-run-generator",
	"usr/lib/systemd/system-generators/systemd-ssh-generator",
	"usr/lib/systemd/system-generators/systemd-rc-local-generator",
	"usr/lib/systemd/system-generators/systemd-sysv-generator",
}

func testNoShell(t *testing.T, b *built) {
	for what, r := range b.trees() {
		for _, pattern := range loginPaths {
			for _, name := range r.glob(t, pattern) {
				t.Errorf("%s has %s, which leads to a shell", what, name)
			}
		}
		for _, unit := range []string{"emergency.service", "rescue.service"} {
			if !r.has("usr/lib/systemd/system/" + unit) {
				continue
			}
			if got := r.setting(t, unit, "ExecStart"); !slices.Equal(got, []string{"-/usr/lib/incus-os/explain-failed-boot"}) {
				t.Errorf("%s: %s starts %q, want the explanation alone", what, unit, got)
			}
		}
	}
}

func testAccounts(t *testing.T, b *built) {
	shells := []string{"/usr/sbin/nologin", "/bin/false", "/usr/bin/false", "/sbin/nologin", "/bin/sync"}
	for what, r := range map[string]tree{"the system": b.merged, "factory": tree(b.merged.path("usr/share/factory"))} {
		for name, f := range r.table(t, "etc/passwd") {
			if !slices.Contains(shells, f[6]) {
				t.Errorf("%s: %s has the shell %q", what, name, f[6])
			}
			if f[1] != "x" && f[1] != "!" && f[1] != "*" {
				t.Errorf("%s: %s has a password in etc/passwd", what, name)
			}
			if f[2] == "0" && name != "root" {
				t.Errorf("%s: %s is root by another name", what, name)
			}
		}
		shadow := r.table(t, "etc/shadow")
		if len(shadow) == 0 {
			t.Errorf("%s has no accounts in etc/shadow", what)
		}
		for name, f := range shadow {
			if !strings.HasPrefix(f[1], "!") && !strings.HasPrefix(f[1], "*") {
				t.Errorf("%s: %s has a usable password", what, name)
			}
		}
	}
}

// table reads a file with one account on each line.
func (r tree) table(t *testing.T, name string) map[string][]string {
	t.Helper()
	rows := make(map[string][]string)
	for line := range strings.Lines(r.read(t, name)) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		rows[fields[0]] = fields
	}
	return rows
}

// testModes: privileges come from systemd, not from files, so the list of
// set-uid files is empty and stays so.
func testModes(t *testing.T, b *built) {
	for what, r := range b.trees() {
		r.walk(t, func(name string, info fs.FileInfo) {
			mode := info.Mode()
			switch {
			case mode&fs.ModeSymlink != 0:
			case mode&(fs.ModeSetuid|fs.ModeSetgid) != 0 && mode.IsRegular():
				t.Errorf("%s: %s is set-uid or set-gid (%v)", what, name, mode)
			case mode.Perm()&0o002 != 0 && mode&fs.ModeSticky == 0:
				t.Errorf("%s: everybody may write to %s (%v)", what, name, mode)
			case mode&fs.ModeSticky != 0 && strings.HasPrefix(name, "usr/"):
				t.Errorf("%s: %s is sticky, so it is meant to be written to (%v)", what, name, mode)
			}
		})
	}
	for _, name := range []string{"etc/shadow", "etc/gshadow"} {
		if info, err := os.Stat(b.base.path("usr/share/factory/" + name)); err != nil || info.Mode().Perm()&0o007 != 0 {
			t.Errorf("everybody may read %s, or there is none (error: %v)", name, err)
		}
	}
}

// testUnique looks for what two machines must not share.
func testUnique(t *testing.T, b *built) {
	for _, name := range []string{
		"etc/machine-id", "etc/hostid", "etc/hostname", "etc/ssh/ssh_host_*", "etc/ssl/private/*",
		"usr/share/factory/var/lib/systemd/random-seed",
	} {
		for _, found := range b.merged.glob(t, name) {
			t.Errorf("every machine would have the same %s", found)
		}
	}
	for what, r := range b.trees() {
		r.regular(t, func(name string) {
			if info, err := os.Stat(r.path(name)); err != nil || info.Size() > 64<<10 {
				return
			}
			content, err := os.ReadFile(r.path(name))
			if err != nil {
				t.Error(err)
			}
			if bytes.HasPrefix(content, []byte("-----BEGIN ")) && bytes.Contains(content, []byte("PRIVATE KEY-----")) {
				t.Errorf("%s holds a private key in %s", what, name)
			}
		})
	}
}
