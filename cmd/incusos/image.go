package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/incusos/incusos/internal/image"
	"github.com/incusos/incusos/internal/keys"
	"github.com/incusos/incusos/internal/repo"
	"github.com/incusos/incusos/internal/sys"
)

// imageCommand is the group that builds images.
func imageCommand() *cobra.Command {
	return group("image", "Build the operating system.",
		imageBuildCommand(), imageToolsCommand(), imageReproduceCommand())
}

func imageBuildCommand() *cobra.Command {
	var version, root string
	b := &image.Builder{Exec: sys.Real().Exec}
	cmd := &cobra.Command{
		Use:   "build",
		Short: "Build the disk image and the extension images",
		Long: `Build the disk image and the extension images from the checkout in the current
directory. The version and the time stamps come from the newest commit, so that
the same commit, keys and packages give the same bytes.

Machines that run the image trust the update repository that "incusos repo init
--keys" made with the same keys. To have them trust another, name the file that
"incusos repo root" printed of it with --update-root; do that too once the keys of
your repository have changed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			epoch, err := commitTime(cmd)
			if err != nil {
				return err
			}
			if err := trust(b, root); err != nil {
				return fmt.Errorf("cannot build the image: %w", err)
			}
			r, err := b.Build(cmd.Context(), version, epoch)
			if err != nil {
				return fmt.Errorf("cannot build the image: %w", err)
			}
			return r.Print(cmd.OutOrStdout())
		},
	}
	builderFlags(cmd, b)
	cmd.Flags().StringVar(&version, "version", "", "version to build, YYYYMMDDhhmm (default: time of the newest commit)")
	cmd.Flags().StringVar(&root, "update-root", "", "trust the update repository with the root in `FILE` (default: the one that starts with the keys)")
	cmd.Flags().StringSliceVar(&b.With, "with", nil, "also build the extension images `NAMES` (ovn, incus-ceph), which few machines need")
	cmd.Flags().BoolVar(&b.Dev, "dev", false, "add a root shell on the console; never for release")
	return cmd
}

func imageToolsCommand() *cobra.Command {
	b := &image.Builder{Exec: sys.Real().Exec}
	cmd := &cobra.Command{
		Use:   "tools",
		Short: "Make the tree with mkosi, QEMU and their like, and print where it is",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := b.Tools(cmd.Context())
			if err != nil {
				return fmt.Errorf("cannot make the tools tree: %w", err)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), dir)
			return err
		},
	}
	builderFlags(cmd, b)
	return cmd
}

func imageReproduceCommand() *cobra.Command {
	b := &image.Builder{Exec: sys.Real().Exec}
	cmd := &cobra.Command{
		Use:   "reproduce",
		Short: "Build twice with empty caches and compare what must be equal",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			epoch, err := commitTime(cmd)
			if err != nil {
				return err
			}
			if err := trust(b, ""); err != nil {
				return fmt.Errorf("cannot reproduce the image: %w", err)
			}
			if err := b.Reproduce(cmd.Context(), epoch, cmd.OutOrStdout()); err != nil {
				return fmt.Errorf("cannot reproduce the image: %w", err)
			}
			return nil
		},
	}
	builderFlags(cmd, b)
	return cmd
}

// trust has the image trust the update repository with the root in a file, "" for
// the one that starts with the keys of the image.
func trust(b *image.Builder, file string) (err error) {
	if file == "" {
		r, err := keys.Load(b.Keys)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("there are no keys in %s; make them with `incusos keys init %s`", b.Keys, b.Keys)
		}
		if err != nil {
			return err
		}
		b.Root, err = r.UpdateRoot()
		return err
	}
	if b.Root, err = os.ReadFile(file); err != nil {
		return err
	}
	b.Root = bytes.TrimSuffix(b.Root, []byte("\n"))
	if _, _, err := repo.RootVersion(b.Root); err != nil {
		return fmt.Errorf("%s is no root of a repository; want what `incusos repo root` prints: %w", file, err)
	}
	return nil
}

func builderFlags(cmd *cobra.Command, b *image.Builder) {
	cache := cacheDir()
	f := cmd.Flags()
	f.StringVar(&b.Source, "source", ".", "root of the checkout")
	f.StringVar(&b.Cache, "cache", cache, "directory that outlives checkouts")
	f.StringVar(&b.Keys, "keys", filepath.Join(cache, "keys"), "directory of the keys made by incusos keys init")
	f.StringVar(&b.Output, "output", filepath.Join(cache, "image"), "directory for the result")
	f.StringVar(&b.Mirror, "mirror", "", "Debian mirror (default: the one this host uses)")
	verbose := verboseFlag(cmd)
	cmd.PreRunE = func(*cobra.Command, []string) error {
		for _, dir := range []*string{&b.Source, &b.Cache, &b.Keys, &b.Output} {
			abs, err := filepath.Abs(*dir)
			if err != nil {
				return err
			}
			*dir = abs
		}
		b.Log = buildLog(cmd, b.Cache, *verbose)
		return nil
	}
}

func verboseFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("verbose", false, "show everything that the tools print while they build")
}

// buildLog returns where a build says how it goes on.
func buildLog(cmd *cobra.Command, cache string, verbose bool) *image.Log {
	return image.NewLog(cmd.ErrOrStderr(), filepath.Join(cache, "build.log"), verbose)
}

// cacheDir is where big files live between builds.
func cacheDir() string {
	if dir := os.Getenv("INCUSOS_CACHE"); dir != "" {
		return dir
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = "/var/cache"
	}
	return filepath.Join(dir, "incusos")
}

// commitTime is the time of the newest commit; SOURCE_DATE_EPOCH overrides it
// (reproducible-builds.org, SOURCE_DATE_EPOCH specification).
func commitTime(cmd *cobra.Command) (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		out, err := sys.Real().Exec.Run(cmd.Context(), sys.Command("git", "log", "-1", "--format=%ct"))
		if err != nil {
			return time.Time{}, fmt.Errorf("cannot tell the time of the newest commit: %w", err)
		}
		text = strings.TrimSpace(string(out))
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, errors.New("cannot tell the time of the build: SOURCE_DATE_EPOCH is not a number of seconds")
	}
	return time.Unix(seconds, 0), nil
}
