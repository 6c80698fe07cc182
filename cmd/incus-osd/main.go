// Incus-osd is the operating system's daemon: it brings the machine up, shows
// how it is doing on the console and serves the API below /os/1.0.
//
// It also is the early boot, as `incus-osd initrd`. On a directory, with
// --root and --pretend, it runs without root privileges and acts on a pretend
// machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/incusos/incusos/internal/apps"
	"github.com/incusos/incusos/internal/console"
	"github.com/incusos/incusos/internal/daemon"
	"github.com/incusos/incusos/internal/early"
	"github.com/incusos/incusos/internal/provision"
	"github.com/incusos/incusos/internal/seed"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

const usage = `Usage:
  incus-osd [flags]     run the machine
  incus-osd initrd      do the early boot; only in an initrd
  incus-osd version     print what this program was built from

Flags:
  --root DIR      act on the file tree in DIR; needs --pretend
  --pretend       act on a pretend machine instead of this one; needs --root
  --machine FILE  what the pretend machine consists of, in JSON
  --socket PATH   serve the API there instead of /run/incus-os/unix.socket
  --metrics ADDR  serve figures for Prometheus at this TCP address instead of
                  127.0.0.1:9100; a pretend machine serves none without it
  --proxy ADDR    serve the way out of the machine at this TCP address of the
                  loopback instead of 127.0.0.1:3128; a pretend machine serves
                  none without it
`

func main() {
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch err := run(ctx, os.Args[1:], os.Stdout); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Print(usage)
	case err != nil:
		fmt.Fprintln(os.Stderr, "incus-osd: cannot go on:", err)
		os.Exit(1) //nolint:gocritic // the signals end with the process
	}
}

// options are the flags.
type options struct {
	root, machine, socket, metrics, proxy string
	pretend                               bool
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	var o options
	flags := flag.NewFlagSet("incus-osd", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&o.root, "root", "", "")
	flags.StringVar(&o.machine, "machine", "", "")
	flags.StringVar(&o.socket, "socket", "", "")
	flags.StringVar(&o.metrics, "metrics", "", "")
	flags.StringVar(&o.proxy, "proxy", "", "")
	flags.BoolVar(&o.pretend, "pretend", false, "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch command := flags.Arg(0); command {
	case "":
		return serve(ctx, o, stdout)
	case "initrd":
		return initrd(ctx)
	case "version":
		return version(stdout)
	default:
		return fmt.Errorf("there is no command %q; want initrd, version or none", command)
	}
}

func serve(ctx context.Context, o options, stdout io.Writer) error {
	host, screens, err := machine(o, stdout)
	if err != nil {
		return err
	}
	screen := console.New(host.Files, screens...)
	defer screen.Close()
	parts := daemon.Wire(host, screen, func() (daemon.First, error) { return first(host) })
	parts.Socket, parts.Metrics, parts.Proxy = o.socket, o.metrics, o.proxy
	if parts.Metrics == "" && !o.pretend {
		parts.Metrics = daemon.MetricsAddress
	}
	if parts.Proxy == "" && !o.pretend {
		parts.Proxy = daemon.ProxyAddress
	}
	parts.Install = func(ctx context.Context, screen *console.Console) error { return provision.Install(ctx, host, screen) }
	return daemon.New(parts).Run(ctx)
}

// first is what the seed of the machine asks for.
func first(host sys.Host) (daemon.First, error) {
	f, err := provision.Read(host)
	if err != nil {
		return daemon.First{}, err
	}
	return daemon.First{
		Network: f.Network, Kernel: f.Kernel, Logging: f.Logging, Security: f.Security, Update: f.Update, Provider: f.Provider,
		Incus: f.Incus, Services: f.Services.ByName(), Applications: f.Applications,
		Images: images{f.Images}, Unused: f.Unused,
	}, nil
}

// images is the extension images in a seed, as package apps takes them.
type images struct{ *seed.Seed }

func (i images) Applications() []apps.Image {
	var out []apps.Image
	for _, a := range i.Seed.Applications() {
		out = append(out, apps.Image(a))
	}
	return out
}

func (i images) OpenApplication(name string) (io.ReadCloser, error) {
	for _, a := range i.Seed.Applications() {
		if a.Name == name {
			return i.Seed.OpenApplication(a)
		}
	}
	return nil, fmt.Errorf("the seed has no image of %q", name)
}

// machine returns the machine to act on, and what else to write the console to:
// a pretend machine has none of its own.
func machine(o options, stdout io.Writer) (sys.Host, []io.Writer, error) {
	switch {
	case o.pretend && o.root == "":
		return sys.Host{}, nil, errors.New("--pretend needs --root, the directory to pretend in")
	case o.root != "" && !o.pretend:
		return sys.Host{}, nil, errors.New("--root needs --pretend: programs and services would be those of this machine")
	case o.machine != "" && !o.pretend:
		return sys.Host{}, nil, errors.New("--machine needs --pretend")
	case o.pretend:
		host, err := pretend(o)
		return host, []io.Writer{stdout}, err
	case os.Geteuid() != 0:
		return sys.Host{}, nil, errors.New("only root can run this machine; see --pretend")
	}
	return sys.Real(), nil, nil
}

func pretend(o options) (sys.Host, error) {
	m := systest.Sensible()
	if o.machine != "" {
		var err error
		if m, err = systest.ReadMachine(o.machine); err != nil {
			return sys.Host{}, fmt.Errorf("pretending: %w", err)
		}
	}
	rig, err := systest.Pretend(o.root, m)
	if err != nil {
		return sys.Host{}, err
	}
	if err := rig.LogPrograms(); err != nil {
		return sys.Host{}, fmt.Errorf("pretending: %w", err)
	}
	if _, err := systest.NewTrust(rig); err != nil {
		return sys.Host{}, err
	}
	systest.NewZFS(rig)
	systest.NewDrives(rig)
	systest.AddTables(rig)
	systest.NewSAN(rig)
	systest.NewDisks(rig)
	systest.NewSysext(rig)
	systest.NewJournal(rig)
	if m.Incus == "" {
		systest.NewIncus(rig)
	} else if err := systest.LinkIncus(rig, m.Incus); err != nil {
		return sys.Host{}, fmt.Errorf("pretending: %w", err)
	}
	if err := systest.SeedIncus(rig.Host.Files); err != nil {
		return sys.Host{}, fmt.Errorf("pretending: %w", err)
	}
	return rig.Host, nil
}

// initrd does the early boot. What a person has to change stays on the screen;
// the machine starts again after an hour, in case it was changed from afar.
func initrd(ctx context.Context) error {
	host := sys.Real()
	screen := console.New(host.Files)
	defer screen.Close()
	err := early.Run(ctx, host, screen)
	if _, ok := errors.AsType[*early.RefusedError](err); ok {
		select {
		case <-ctx.Done():
		case <-time.After(time.Hour):
		}
	} else if err != nil {
		screen.Fail("IncusOS does not start", err.Error())
	}
	return err
}

func version(w io.Writer) error {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return errors.New("this program was built without saying from what")
	}
	revision := "of an unknown revision"
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			revision = s.Value
		}
	}
	_, err := fmt.Fprintf(w, "incus-osd %s %s (%s)\n", info.Main.Version, revision, info.GoVersion)
	return err
}
