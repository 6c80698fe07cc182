package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/incusos/incusos/internal/image"
	"github.com/incusos/incusos/internal/keys"
	"github.com/incusos/incusos/internal/media"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/vm"
)

// vmCommand is the branch that runs the built image.
func vmCommand() *cobra.Command {
	return group("vm", "Run the built image in a virtual machine.", vmRunCommand())
}

// vmRun is what the flags of `incusos vm run` say.
type vmRun struct {
	dir    string
	images string
	keys   string
	tools  string
	build  bool
	memory int
	port   int

	verbose *bool
}

func vmRunCommand() *cobra.Command {
	var v vmRun
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Install the built image in a virtual machine and keep it running.",
		Long: `Install the built image in a virtual machine with a TPM and Secure Boot, and
keep it running until Ctrl-C, which switches it off in good order. The first run
makes an install medium and a client certificate and installs; later runs boot
what was installed, whatever was built since. A second Ctrl-C pulls the plug.

Without KVM everything takes about ten times longer.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cannot("run the virtual machine", v.run(cmd))
		},
	}
	cache := cacheDir()
	v.verbose = verboseFlag(cmd)
	f := cmd.Flags()
	f.StringVar(&v.dir, "dir", filepath.Join(cache, "run"), "keep the machine in `DIR`; remove it to start over")
	f.StringVar(&v.images, "image-dir", filepath.Join(cache, "image"), "take the image that was built in `DIR`")
	f.StringVar(&v.keys, "keys", filepath.Join(cache, "keys"), "with --build, sign with the keys in `DIR`, made if there are none")
	f.BoolVar(&v.build, "build", false, "build the image of the checkout in the current directory before it is installed")
	f.StringVar(&v.tools, "tools", "", "run QEMU, OVMF and swtpm from the tree `DIR` (default: the one that builds images, made if need be)")
	f.IntVar(&v.memory, "memory", 3072, "give the machine `N` MiB of memory")
	f.IntVar(&v.port, "port", 8443, "let port `N` of 127.0.0.1 lead to Incus; 0 takes a free one")
	return cmd
}

// run returns when the machine is off, whoever has switched it off.
func (v vmRun) run(cmd *cobra.Command) error {
	ctx, out := cmd.Context(), cmd.OutOrStdout()
	o, err := v.options(cmd)
	if err != nil {
		return err
	}
	site, err := vm.Up(ctx, o)
	if err != nil {
		return err
	}
	defer site.Stop()
	site.Describe(out)
	select {
	case <-site.Done():
		return nil
	case <-ctx.Done():
	}
	fmt.Fprintln(out, "\nswitching the machine off; Ctrl-C again pulls the plug")
	again, stop := signal.NotifyContext(context.WithoutCancel(ctx), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return site.Down(again)
}

func (v vmRun) options(cmd *cobra.Command) (vm.UpOptions, error) {
	b, err := v.builder(cmd)
	if err != nil {
		return vm.UpOptions{}, err
	}
	if v.tools == "" {
		if v.tools, err = b.Tools(cmd.Context()); err != nil {
			return vm.UpOptions{}, err
		}
	}
	return vm.UpOptions{
		Options: vm.Options{Tools: v.tools, Cache: b.Cache, Memory: v.memory, Port: v.port},
		Dir:     v.dir,
		Medium: func(ctx context.Context, seed, file string) error {
			i, err := v.image(cmd, b)
			if err != nil {
				return err
			}
			return media.Build(ctx, media.Options{Image: i.Disk, Output: file, Contents: media.Contents{
				Seed:         seed,
				Applications: carried(i),
			}})
		},
		Progress: func(at time.Duration, text string) {
			fmt.Fprintf(cmd.OutOrStdout(), "%7.1fs  %s\n", at.Seconds(), text)
		},
	}, nil
}

// builder builds images from the checkout in the current directory.
func (v vmRun) builder(cmd *cobra.Command) (*image.Builder, error) {
	b := &image.Builder{Exec: sys.Real().Exec, Source: ".", Cache: cacheDir(), Keys: v.keys, Output: v.images}
	for _, dir := range []*string{&b.Source, &b.Cache, &b.Keys, &b.Output} {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return nil, err
		}
		*dir = abs
	}
	b.Log = buildLog(cmd, b.Cache, *v.verbose)
	return b, nil
}

// image returns what to install: the newest image there is, or a new one.
func (v vmRun) image(cmd *cobra.Command, b *image.Builder) (vm.Image, error) {
	if !v.build {
		return vm.FindImage(b.Output)
	}
	if _, err := os.Stat(b.Keys); errors.Is(err, fs.ErrNotExist) {
		if err := keys.Init(b.Keys, keys.Options{Name: "IncusOS"}); err != nil {
			return vm.Image{}, err
		}
	}
	if err := trust(b, ""); err != nil {
		return vm.Image{}, err
	}
	epoch, err := commitTime(cmd)
	if err != nil {
		return vm.Image{}, err
	}
	if _, err := b.Build(cmd.Context(), "", epoch); err != nil {
		return vm.Image{}, err
	}
	return vm.FindImage(b.Output)
}

// carried are the applications that a medium carries: all that were built.
func carried(i vm.Image) []media.Application {
	all := []media.Application{{Name: "incus", Version: i.Version, File: i.Incus}}
	for _, name := range slices.Sorted(maps.Keys(i.Others)) {
		all = append(all, media.Application{Name: name, Version: i.Version, File: i.Others[name]})
	}
	return all
}
