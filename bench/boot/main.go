// Command boot measures how long a machine takes from being switched on to its
// Incus answering over HTTPS, for IncusOS and for a plain Debian with the same
// packages of Incus, ext4 and no encryption. Both run in the same QEMU with the
// same firmware, processors and memory, by turns, in one run.
//
//	go run ./bench/boot [-n 3]
//
// IncusOS is installed from the image in INCUSOS_IMAGE_DIR and boots as it does
// on any machine: systemd-boot, Secure Boot, dm-verity, a root that the TPM
// unlocks. Debian's kernel is handed over by QEMU, so that its figures have no
// boot loader in them. Both are installed once and kept in the cache.
//
// Where a phase ends is seen from outside, the same way for both, so that
// nothing is added to what is measured: see measure.go and processor.go.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/incusos/incusos/internal/image"
	"github.com/incusos/incusos/internal/media"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/vm"
)

func main() {
	n := flag.Int("n", 3, "boot each system `N` times")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *n); err != nil {
		fmt.Fprintln(os.Stderr, "boot: cannot measure:", err)
		os.Exit(1)
	}
}

// Timeouts as with KVM.
const (
	firstBootTime = 3 * time.Minute
	measureTime   = time.Minute
	offTime       = 30 * time.Second
)

// diskName is that of both machines' only disk; machineDisk its size, which is
// enough for either.
const (
	diskName    = "disk"
	machineDisk = 64 << 30
)

// A system is one that can be booted again and again.
type system interface {
	name() string
	start(context.Context) (*vm.Running, error)
	site(*vm.Running) *vm.Site
}

func run(ctx context.Context, n int) error {
	if n < 1 {
		return fmt.Errorf("-n is %d; want 1 or more", n)
	}
	systems, err := prepare(ctx)
	if err != nil {
		return err
	}
	taken := make(map[string][]Marks)
	for i := range n {
		for _, s := range systems {
			m, err := measure(ctx, s)
			if err != nil {
				return fmt.Errorf("boot %d of %s: %w", i+1, s.name(), err)
			}
			fmt.Printf("boot %d of %-8s %s\n", i+1, s.name()+":", m)
			taken[s.name()] = append(taken[s.name()], m)
		}
	}
	fmt.Println()
	fmt.Print(table(systems[0].name(), taken[systems[0].name()], systems[1].name(), taken[systems[1].name()]))
	return nil
}

// prepare installs both systems, unless they are.
func prepare(ctx context.Context) ([]system, error) {
	b := &image.Builder{Exec: sys.Real().Exec, Cache: os.Getenv("INCUSOS_CACHE")}
	if b.Cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return nil, err
		}
		b.Cache = filepath.Join(dir, "incusos")
	}
	b.Log = image.NewLog(os.Stderr, filepath.Join(b.Cache, "build.log"), false)
	tools, err := b.Tools(ctx)
	if err != nil {
		return nil, err
	}
	o := vm.Options{Tools: tools, Cache: b.Cache, Disks: []vm.Disk{{Name: diskName, Size: machineDisk}}}
	ours, err := openIncusOS(ctx, b, o)
	if err != nil {
		return nil, err
	}
	theirs, err := openDebian(ctx, b, o, ours.id)
	if err != nil {
		return nil, err
	}
	return []system{ours, theirs}, nil
}

// An incusOS is an installed machine.
type incusOS struct {
	machine *vm.Machine
	id      vm.Identity
}

func (s incusOS) name() string { return "IncusOS" }

func (s incusOS) start(ctx context.Context) (*vm.Running, error) {
	return s.machine.Start(ctx, vm.Boot{})
}

func (s incusOS) site(r *vm.Running) *vm.Site { return siteOf(r, s.id) }

func siteOf(r *vm.Running, id vm.Identity) *vm.Site {
	return &vm.Site{Running: r, Identity: id, URL: fmt.Sprintf("https://127.0.0.1:%d", r.Port)}
}

// openIncusOS returns the machine with the newest image, which it installs at
// first and boots until Incus has been set up.
func openIncusOS(ctx context.Context, b *image.Builder, o vm.Options) (incusOS, error) {
	i, err := vm.FindImage(cmp.Or(os.Getenv("INCUSOS_IMAGE_DIR"), filepath.Join(b.Cache, "image")))
	if err != nil {
		return incusOS{}, err
	}
	dir := filepath.Join(b.Cache, "bench-incusos")
	done := filepath.Join(dir, preseeded)
	if version, err := os.ReadFile(done); err != nil || string(version) != i.Version {
		if err := discard(dir); err != nil {
			return incusOS{}, err
		}
		if err := install(ctx, dir, i, o); err != nil {
			return incusOS{}, fmt.Errorf("installing IncusOS: %w", err)
		}
		if err := os.WriteFile(done, []byte(i.Version), 0o600); err != nil {
			return incusOS{}, err
		}
	}
	id, err := vm.OpenIdentity(filepath.Join(dir, clientDir))
	if err != nil {
		return incusOS{}, err
	}
	m, err := vm.Open(dir, o)
	return incusOS{m, id}, err
}

// clientDir is where vm.Up keeps the client certificate.
const clientDir = "client"

// discard removes a machine with another image, but not the certificate: the
// Debian beside it knows it.
func discard(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if e.Name() == clientDir {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func install(ctx context.Context, dir string, i vm.Image, o vm.Options) error {
	site, err := vm.Up(ctx, vm.UpOptions{
		Options: o,
		Dir:     dir,
		Medium: func(ctx context.Context, seed, file string) error {
			return media.Build(ctx, media.Options{Image: i.Disk, Output: file, Contents: media.Contents{
				Seed:         seed,
				Applications: []media.Application{{Name: "incus", Version: i.Version, File: i.Incus}},
			}})
		},
		Progress: func(at time.Duration, text string) { fmt.Fprintf(os.Stderr, "%7.1fs  %s\n", at.Seconds(), text) },
	})
	if err != nil {
		return err
	}
	return site.Down(ctx)
}
