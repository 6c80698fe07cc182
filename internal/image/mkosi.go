package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/incusos/incusos/internal/sys"
)

// ukifyConf makes ukify sign the PCR 11 policy for the initrd alone: once the
// root file system is mounted, the TPM gives its key to nobody (ukify(1),
// [PCRSignature:] section; systemd-pcrphase.service(8) for the phase).
const ukifyConf = `[UKI]
PCRBanks=sha256

[PCRSignature:initrd]
PCRPrivateKey=/etc/incusos/pcr.key
Phases=enter-initrd
`

// incusPin takes Incus, and nothing else, from backports.
const incusPin = `Package: incus incus-base incus-client incus-agent src:incus
Pin: release n=trixie-backports
Pin-Priority: 900
`

// aptConf answers dpkg's question about configuration files that the image's
// skeleton brings: ours stay. Without it a first build asks on the terminal.
const aptConf = `Dpkg::Options { "--force-confdef"; "--force-confold"; };
`

// sandbox writes the files that mkosi's tools see in their /etc.
func (b *Builder) sandbox(work string) error {
	m, err := b.mirror()
	if err != nil {
		return err
	}
	etc := filepath.Join(work, "sandbox/etc")
	if err := m.writeApt(etc); err != nil {
		return err
	}
	key, err := os.ReadFile(filepath.Join(b.Keys, "pcr.key"))
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("there are no keys in %s; make them with `incusos keys init %s`", b.Keys, b.Keys)
	}
	if err != nil {
		return err
	}
	return writeAll(etc, map[string][]byte{"systemd/ukify.conf": []byte(ukifyConf), "incusos/pcr.key": key})
}

// writeApt writes what apt is told about where packages come from.
func (m mirror) writeApt(etc string) error {
	if err := m.writeSources(filepath.Join(etc, "apt/sources.list.d/mkosi.sources"), "trixie trixie-updates trixie-backports"); err != nil {
		return err
	}
	return writeAll(etc, map[string][]byte{"apt/apt.conf.d/50incusos": []byte(aptConf), "apt/preferences.d/incus.pref": []byte(incusPin)})
}

func writeAll(dir string, files map[string][]byte) error {
	for name, content := range files {
		if err := write(filepath.Join(dir, name), content); err != nil {
			return err
		}
	}
	return nil
}

func write(name string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil { //nolint:gosec // apt reads it as another user
		return err
	}
	mode := os.FileMode(0o644)
	if filepath.Ext(name) == ".key" {
		mode = 0o600
	}
	return os.WriteFile(name, content, mode)
}

// mkosi runs the build.
func (b *Builder) mkosi(ctx context.Context, tools, work string, a arch, version string, epoch time.Time) error {
	if err := os.MkdirAll(b.Output, 0o755); err != nil { //nolint:gosec // images are not secret
		return err
	}
	m, err := b.mirror()
	if err != nil {
		return err
	}
	args := []string{
		"--directory=" + filepath.Join(b.Source, "image"),
		"--tools-tree=" + tools,
		"--architecture=" + a.mkosi,
		"--mirror=" + m.main,
		"--sandbox-tree=" + filepath.Join(work, "sandbox"),
		"--extra-tree=" + filepath.Join(work, "extra"),
		"--build-sources=" + b.Keys + ":keys," + filepath.Join(work, "tools") + ":tools",
		"--cache-directory=" + filepath.Join(b.Cache, "mkosi"),
		"--package-cache-dir=" + filepath.Join(b.Cache, "packages"),
		"--output-directory=" + b.Output,
		"--image-version=" + version,
		fmt.Sprintf("--source-date-epoch=%d", epoch.Unix()),
		"--secure-boot-key=" + filepath.Join(b.Keys, "db.key"),
		"--secure-boot-certificate=" + filepath.Join(b.Keys, "db.crt"),
		"--verity-key=" + filepath.Join(b.Keys, "db.key"),
		"--verity-certificate=" + filepath.Join(b.Keys, "db.crt"),
		"--force",
	}
	if b.Dev {
		args = append(args, "--profile=dev")
	}
	for _, name := range b.With {
		args = append(args, "--dependency="+name)
	}
	b.Log.Step("running mkosi (a first build takes ten minutes)")
	return b.runMkosi(ctx, tools, args)
}

// runMkosi runs the tree's own mkosi with the host's python, since it cannot
// sandbox itself from inside a chroot.
func (b *Builder) runMkosi(ctx context.Context, tools string, args []string) error {
	for _, dir := range []string{"mkosi", "packages"} {
		if err := os.MkdirAll(filepath.Join(b.Cache, dir), 0o755); err != nil { //nolint:gosec // caches of public packages
			return err
		}
	}
	c := sys.Command("python3", slices.Concat([]string{"-m", "mkosi"}, args, []string{"build"})...)
	c.Env = []string{"PYTHONPATH=" + filepath.Join(tools, "usr/lib/python3/dist-packages")}
	if err := b.run(ctx, c); err != nil {
		return fmt.Errorf("building with mkosi: %w", err)
	}
	return nil
}
