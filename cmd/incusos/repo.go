package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/incusos/incusos/internal/fetch"
	"github.com/incusos/incusos/internal/publish"
	"github.com/incusos/incusos/internal/repo"
)

func repoCommand() *cobra.Command {
	c := group("repo", "Publish updates.",
		repoInitCommand(), repoPublishCommand(), repoPromoteCommand(), repoDemoteCommand(), repoSeverityCommand(),
		repoWithdrawCommand(), repoPruneCommand(), repoRefreshCommand(), repoRotateCommand(), repoMirrorCommand(),
		repoShowCommand(), repoRootCommand())
	c.Long = c.Short + `

A repository is a directory that any web server which answers range requests can
serve as it is. Machines believe none of it but what the keys have signed.
Upload the directory targets before metadata, and metadata/timestamp.json last.`
	return c
}

func repoInitCommand() *cobra.Command {
	var s signing
	var r roles
	c := &cobra.Command{
		Use:   "init REPO",
		Short: "Make an update repository.",
		Long: `Make an update repository.

REPO is a directory that is new or empty. The first key that signs gets every role
that --role names no key for. To keep the key of the root away from the machine
that publishes, name public keys for it; the root is signed once, here, and again
when keys change.

With --keys the repository starts from the root that images built with these keys
carry, so that their machines trust it. Keys that --role names are a change of keys
then, which machines follow. Without it, give the root to machines or to "incusos
image build --update-root": see "incusos repo root".`,
		Example: `  incusos repo init --keys keys updates
  incusos repo init --sign-with alice.key --sign-with bob.key --sign-with ci.key --role root=alice.key --role root=bob.key --threshold root=2 --role targets=alice.key --role snapshot=ci.key --role timestamp=ci.key updates`,
		Args: operands("REPO"),
		RunE: func(c *cobra.Command, args []string) error {
			return cannot("make the repository", func() error {
				with, err := s.load(c)
				if err != nil {
					return err
				}
				all, err := r.parse(c)
				if err != nil {
					return err
				}
				root, err := s.root()
				if err != nil {
					return err
				}
				if root == nil {
					fill(all, with.Keys[0])
				}
				return publish.Init(args[0], root, all, with)
			}())
		},
	}
	s.addFlags(c)
	r.addFlags(c)
	return c
}

// changeCommand returns a command that changes a repository, its first operand.
func changeCommand(c *cobra.Command, what string, names []string, do func(ctx context.Context, a *repo.Author, args []string) error) *cobra.Command {
	var s signing
	c.Args = operands(names...)
	c.RunE = func(c *cobra.Command, args []string) error {
		with, err := s.load(c)
		if err == nil {
			err = publish.Change(c.Context(), args[0], with, func(a *repo.Author) error { return do(c.Context(), a, args) })
		}
		return cannot(what, err)
	}
	s.addFlags(c)
	return c
}

func repoPublishCommand() *cobra.Command {
	var image, changelog string
	var applications []string
	t := publish.Terms{}
	c := changeCommand(&cobra.Command{
		Use:   "publish --image DIR REPO",
		Short: "Publish the newest build of an image.",
		Long: `Publish the newest build of an image.

DIR is what "incusos image build" wrote. The file system, the kernel and all
extension images in it become one release, with hash trees by which machines
fetch no more than what has changed. That the file system, its tree and its
signature belong together is checked first.

With --applications, those extension images alone become a release, with the
version of their build. Machines that run the release of a system before it take
them without a restart; those that run an older one, with the next system.`,
		Example: `  incusos repo publish --keys keys --image image/out --channel testing updates
  incusos repo publish --keys keys --image image/out --channel stable --percent 10 --severity high --changelog changes.md updates`,
	}, "publish the release", []string{"REPO"}, func(ctx context.Context, a *repo.Author, args []string) error {
		b, err := publish.FindBuild(image)
		if err != nil {
			return err
		}
		if len(applications) > 0 {
			if b, err = b.Only(applications); err != nil {
				return err
			}
		}
		if changelog != "" {
			if t.Changelog, err = os.ReadFile(changelog); err != nil {
				return err
			}
		}
		return publish.Publish(ctx, args[0], a, b, t, time.Now())
	})
	c.Flags().StringVar(&image, "image", "", "publish the build in `DIR`")
	c.Flags().StringSliceVar(&applications, "applications", nil, "publish nothing but the applications `NAME,...`")
	c.Flags().StringVar(&t.Channel, "channel", "testing", "put it into the channel `NAME`")
	c.Flags().IntVar(&t.Percent, "percent", 100, "let so many `PERCENT` of machines take it")
	c.Flags().StringVar(&t.Severity, "severity", "none", "say how much to hurry: none, low, medium, high or critical")
	c.Flags().StringVar(&t.Origin, "origin", "", "say who publishes, such as example.net")
	c.Flags().StringVar(&changelog, "changelog", "", "say what is new with the text in `FILE`")
	c.Flags().StringVar(&t.Floor, "floor", "", "let nothing older than `VERSION` be installed from now on")
	return c
}

func repoPromoteCommand() *cobra.Command {
	var percent int
	c := changeCommand(&cobra.Command{
		Use:   "promote REPO VERSION CHANNEL",
		Short: "Put a release into a channel, or widen its roll-out.",
		Long: `Put a release into a channel, or widen its roll-out.

Which machines are among the first PERCENT is decided by each for itself, and by
another draw for each version. A machine that may take a release still may when
the percentage grows.`,
		Example: `  incusos repo promote --keys keys --percent 10 updates 202611271200 stable
  incusos repo promote --keys keys updates 202611271200 stable`,
	}, "promote the release", []string{"REPO", "VERSION", "CHANNEL"}, func(_ context.Context, a *repo.Author, args []string) error {
		return publish.Promote(a, args[1], args[2], percent)
	})
	c.Flags().IntVar(&percent, "percent", 100, "let so many `PERCENT` of machines take it")
	return c
}

func repoDemoteCommand() *cobra.Command {
	return changeCommand(&cobra.Command{
		Use:     "demote REPO VERSION CHANNEL",
		Short:   "Take a release out of a channel.",
		Long:    "Take a release out of a channel. Machines that run it keep it.",
		Example: `  incusos repo demote --keys keys updates 202611271200 stable`,
	}, "demote the release", []string{"REPO", "VERSION", "CHANNEL"}, func(_ context.Context, a *repo.Author, args []string) error {
		return publish.Demote(a, args[1], args[2])
	})
}

func repoSeverityCommand() *cobra.Command {
	return changeCommand(&cobra.Command{
		Use:     "severity REPO VERSION SEVERITY",
		Short:   "Say how much to hurry with a release.",
		Long:    "Say how much to hurry with a release: none, low, medium, high or critical.",
		Example: `  incusos repo severity --keys keys updates 202611271200 critical`,
	}, "change the severity", []string{"REPO", "VERSION", "SEVERITY"}, func(_ context.Context, a *repo.Author, args []string) error {
		return publish.SetSeverity(a, args[1], args[2])
	})
}

func repoWithdrawCommand() *cobra.Command {
	var reason string
	c := changeCommand(&cobra.Command{
		Use:   "withdraw --reason TEXT REPO VERSION",
		Short: "Keep machines from installing a release.",
		Long: `Keep machines from installing a release.

It stays in the list, with the reason, until it is pruned. Machines that run it
keep it: publish a newer one. A release cannot come back under the same version.`,
		Example: `  incusos repo withdraw --keys keys --reason "pools with a log device are not imported" updates 202611271200`,
	}, "withdraw the release", []string{"REPO", "VERSION"}, func(_ context.Context, a *repo.Author, args []string) error {
		return publish.Withdraw(a, args[1], reason)
	})
	c.Flags().StringVar(&reason, "reason", "", "say why, in one line")
	return c
}

func repoPruneCommand() *cobra.Command {
	var keep int
	c := changeCommand(&cobra.Command{
		Use:     "prune REPO",
		Short:   "Take old releases away, and files that nobody needs.",
		Long:    "Take releases away that are not among the newest of any channel, and files that no release has. Releases of\napplications alone stay and go with the system that they are for.",
		Example: `  incusos repo prune --keys keys --keep 5 updates`,
	}, "prune the repository", []string{"REPO"}, func(_ context.Context, a *repo.Author, _ []string) error {
		_, err := publish.Drop(a, keep)
		return err
	})
	c.Flags().IntVar(&keep, "keep", 5, "keep the `NUMBER` newest systems of each channel, with the applications for them")
	change := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := change(c, args); err != nil {
			return err
		}
		freed, err := publish.Sweep(c.Context(), args[0])
		if err == nil {
			fmt.Fprintf(c.OutOrStdout(), "%d MiB freed\n", freed>>20)
		}
		return cannot("take files away", err)
	}
	return c
}

func repoRefreshCommand() *cobra.Command {
	return changeCommand(&cobra.Command{
		Use:   "refresh REPO",
		Short: "Sign a repository again before it expires.",
		Long: `Sign a repository again before it expires.

A repository that is not refreshed in time is refused by machines: they could not
tell it from one that somebody holds back from them. Run this from a timer, once
a day or a week, with the keys of timestamp and snapshot.`,
		Example: `  incusos repo refresh --sign-with ci.key updates`,
	}, "refresh the repository", []string{"REPO"}, func(context.Context, *repo.Author, []string) error { return nil })
}

func repoRotateCommand() *cobra.Command {
	var r roles
	var c *cobra.Command
	c = changeCommand(&cobra.Command{
		Use:   "rotate --role ROLE=FILE REPO",
		Short: "Change the keys of a repository.",
		Long: `Change the keys of a repository.

Roles that --role names get those keys and no others; the rest stay. The new root
has to be signed by as many keys as the old one asks for, and as the new one does.
Machines follow, however many changes they missed. Images that are built from now
on should carry the new root: see "incusos repo root".`,
		Example: `  incusos repo rotate --keys keys --sign-with new.key --role timestamp=new.pub --role snapshot=new.pub updates`,
	}, "change the keys", []string{"REPO"}, func(_ context.Context, a *repo.Author, _ []string) error {
		all, err := r.parse(c)
		if err != nil {
			return err
		}
		if len(all) == 0 {
			return errors.New("no role to change; name one with --role")
		}
		return a.SetKeys(all)
	})
	r.addFlags(c)
	return c
}

func repoMirrorCommand() *cobra.Command {
	var root, token string
	var m publish.Mirroring
	c := &cobra.Command{
		Use:   "mirror --root FILE SOURCE REPO",
		Short: "Copy a repository, or the newest of it.",
		Long: `Copy a repository, or the newest of it.

SOURCE is an address or a directory. What is copied is verified as a machine would,
and machines verify it again: a mirror needs no keys and cannot change anything. Run
it again to bring the copy up to date. If it is interrupted the copy is still whole.`,
		Example: `  incusos repo mirror --root root.json https://updates.example.net/incusos /srv/updates
  incusos repo mirror --root root.json --channel stable --newest 1 --arch x86_64 updates /media/stick/updates`,
		Args: operands("SOURCE", "REPO"),
		RunE: func(c *cobra.Command, args []string) error {
			return cannot("copy the repository", mirror(c, root, token, args[0], args[1], m))
		},
	}
	c.Flags().StringVar(&root, "root", "", "trust the root in `FILE`")
	c.Flags().StringVar(&token, "token-file", "", "send the token in `FILE`")
	c.Flags().StringArrayVar(&m.Channels, "channel", nil, "copy the releases in the channel `NAME`; repeatable; all if left out")
	c.Flags().StringVar(&m.Architecture, "arch", "", "copy the files for one architecture, x86_64 or aarch64")
	c.Flags().IntVar(&m.Newest, "newest", 0, "copy the `NUMBER` newest systems of each channel, with the applications for them; 0 for all")
	return c
}

func mirror(c *cobra.Command, root, token, source, dir string, m publish.Mirroring) (err error) {
	if root == "" {
		return errors.New("nothing to verify it with; name the root of the repository with --root")
	}
	if m.Root, err = os.ReadFile(root); err != nil {
		return err
	}
	o := fetch.Options{UserAgent: "incusos/" + version()}
	if o.Token, err = readToken(token); err != nil {
		return err
	}
	if m.From, err = fetch.Open(source, o); err != nil {
		return err
	}
	m.Now = time.Now()
	count, size, err := publish.Mirror(c.Context(), dir, m)
	if err == nil {
		fmt.Fprintf(c.OutOrStdout(), "%d files with %d MiB copied\n", count, size>>20)
	}
	return err
}

// readToken reads a token from a file, so that it is in no list of processes.
func readToken(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(b))
	if token == "" || strings.ContainsAny(token, " \t\r\n") {
		return "", fmt.Errorf("%q holds no token; want one word", name)
	}
	return token, nil
}

func repoRootCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "root REPO",
		Short: "Print the root that machines begin with.",
		Long: `Print the root that machines begin with.

It says which keys may sign what, and is not secret. Whoever has it can tell your
repository from any other.`,
		Example: `  incusos repo root updates > root.json`,
		Args:    operands("REPO"),
		RunE: func(c *cobra.Command, args []string) error {
			contents, err := publish.Show(c.Context(), args[0])
			if err != nil {
				return cannot("show the root", err)
			}
			_, err = c.OutOrStdout().Write(append(contents.Root, '\n'))
			return err
		},
	}
}
