package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/incusos/incusos/internal/media"
)

func mediaCommand() *cobra.Command {
	return group("media", "Make install media.", mediaMakeCommand(), mediaReseedCommand())
}

// seedHelp says what --seed and --app mean.
const seedHelp = `--seed names a directory with a file <section>.yaml, .yml or .json for each
section to seed. --app adds an application, so that a machine without a network
can install it: its name, its extension image and the version of that.`

func mediaMakeCommand() *cobra.Command {
	var image string
	var c contents
	cmd := &cobra.Command{
		Use:   "make --image FILE OUTPUT",
		Short: "Make an install medium from an image.",
		Long: `Make an install medium from an image.

OUTPUT is written anew; copy it to a USB stick or attach it to a virtual machine.
Only its owner can read it, since seeds hold secrets. The image is not changed.

` + seedHelp,
		Example: `  incusos media make --image IncusOS.raw --seed seed install.raw
  incusos media make --image IncusOS.raw --seed seed --app incus=incus.raw@202611231200 install.raw`,
		Args: operands("OUTPUT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return cannot("make the medium", makeMedium(cmd, image, args[0], c))
		},
	}
	cmd.Flags().StringVar(&image, "image", "", "start from the disk image `FILE`")
	c.addFlags(cmd)
	return cmd
}

func makeMedium(cmd *cobra.Command, image, output string, c contents) error {
	if image == "" {
		return errors.New("no image to start from; name one with --image")
	}
	mc, err := c.parse()
	if err != nil {
		return err
	}
	return media.Build(cmd.Context(), media.Options{Image: image, Output: output, Contents: mc})
}

func mediaReseedCommand() *cobra.Command {
	var c contents
	cmd := &cobra.Command{
		Use:   "reseed --seed DIR MEDIUM",
		Short: "Replace the seed of an install medium.",
		Long: `Replace the seed of an install medium.

MEDIUM is a file or a device such as /dev/sdb. Its old seed is overwritten; its
applications stay unless --app lists others. If this is interrupted, MEDIUM has
neither, until it is run again.

` + seedHelp,
		Example: `  incusos media reseed --seed seed install.raw`,
		Args:    operands("MEDIUM"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return cannot("reseed the medium", reseedMedium(cmd, args[0], c))
		},
	}
	c.addFlags(cmd)
	return cmd
}

func reseedMedium(cmd *cobra.Command, medium string, c contents) error {
	if c.seed == "" {
		return errors.New("no seed to put on it; name one with --seed")
	}
	mc, err := c.parse()
	if err != nil {
		return err
	}
	return media.WriteSeed(cmd.Context(), medium, mc)
}

// contents are the flags that say what goes onto a medium.
type contents struct {
	seed string
	apps []string
}

func (c *contents) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.seed, "seed", "", "seed the machine from the files in `DIR`")
	cmd.Flags().StringArrayVar(&c.apps, "app", nil, "add an application as `NAME=FILE@VERSION`; repeatable")
}

func (c *contents) parse() (media.Contents, error) {
	mc := media.Contents{Seed: c.seed}
	for _, s := range c.apps {
		a, err := parseApplication(s)
		if err != nil {
			return media.Contents{}, err
		}
		mc.Applications = append(mc.Applications, a)
	}
	return mc, nil
}

// parseApplication reads "NAME=FILE@VERSION", where FILE may contain either sign.
func parseApplication(s string) (media.Application, error) {
	name, rest, ok := strings.Cut(s, "=")
	at := strings.LastIndexByte(rest, '@')
	if !ok || name == "" || at < 1 || at == len(rest)-1 {
		return media.Application{}, fmt.Errorf("--app %q: want NAME=FILE@VERSION, such as incus=incus.raw@202611231200", s)
	}
	return media.Application{Name: name, File: rest[:at], Version: rest[at+1:]}, nil
}
