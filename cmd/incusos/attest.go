package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/incusos/incusos/client"
	"github.com/incusos/incusos/internal/attest"
	"github.com/incusos/incusos/internal/osctl"
	"github.com/incusos/incusos/internal/publish"
)

func attestCommand() *cobra.Command {
	return group("attest", "Check what a machine has proved to run, and what a release should leave in a TPM.",
		attestVerifyCommand(), attestMeasureCommand())
}

// demandFlags are those that say what an attestation is compared with.
type demandFlags struct {
	releases, programs, makers []string
	key, volume                string
}

func (d *demandFlags) add(c *cobra.Command) {
	f := c.Flags()
	f.StringArrayVar(&d.releases, "release", nil, "one of these releases has to run: the measurements in `FILE`, as \"incusos attest measure\" makes them and a repository has them; repeatable")
	f.StringArrayVar(&d.programs, "allow-program", nil, "the firmware may have started the program with this `DIGEST` besides; repeatable")
	f.StringArrayVar(&d.makers, "maker", nil, "the TPM has to have a certificate of one of the manufacturers in `FILE` (PEM); repeatable")
	f.StringVar(&d.key, "key", "", "the attestation key has to be the one with this `NAME`, as it was shown earlier")
	f.StringVar(&d.volume, "volume", "", "PCR 15 has to be this `VALUE`, as it was shown earlier")
}

func (d *demandFlags) demands() (attest.Demands, error) {
	out := attest.Demands{Programs: d.programs, Key: d.key, Volume: d.volume}
	for _, file := range d.releases {
		b, err := os.ReadFile(file)
		if err != nil {
			return out, err
		}
		m, err := attest.ParseMeasurements(b)
		if err != nil {
			return out, fmt.Errorf("%q: %w", file, err)
		}
		out.Releases = append(out.Releases, m)
	}
	for _, file := range d.makers {
		b, err := os.ReadFile(file)
		if err != nil {
			return out, err
		}
		if out.Makers == nil {
			out.Makers = x509.NewCertPool()
		}
		if !out.Makers.AppendCertsFromPEM(b) {
			return out, fmt.Errorf("%q holds no certificate in PEM", file)
		}
	}
	return out, nil
}

func osAttestCommand(o *osFlags) *cobra.Command {
	var d demandFlags
	var save string
	c := &cobra.Command{
		Use:   "attest",
		Short: "Have the machine's TPM prove what was started, and check it.",
		Long: `Have the machine's TPM prove what was started, and check it.

The TPM signs what it holds, with a number that nobody could know before, and answers a
challenge that only a TPM with both its keys can answer. Then each thing that this shows
is printed, and each that it does not. With --release the machine has to run one of the
given releases. Keep what --key and --volume are at the end, and demand them the next
time: then it is the same TPM and the same root volume. The exit status is 1 if anything
is refused.`,
		Example: "  incusos os attest --release measurements.json\n  incusos os attest --release measurements.json --save node1.json",
		Args:    operands(),
	}
	d.add(c)
	c.Flags().StringVar(&save, "save", "", "keep the proof in `FILE`, for \"incusos attest verify\"")
	c.RunE = o.run("check what the machine runs", func(ctx context.Context, m *client.Client, p osctl.Printer, _ []string) error {
		demands, err := d.demands()
		if err != nil {
			return err
		}
		s, err := osctl.AskAttestation(ctx, m)
		if err != nil {
			return err
		}
		if save != "" {
			if err := s.Save(save); err != nil {
				return err
			}
		}
		return s.Judge(demands, p)
	})
	return c
}

func attestVerifyCommand() *cobra.Command {
	var d demandFlags
	var nonce, format string
	c := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check a proof that \"incusos os attest --save\" kept.",
		Long: `Check a proof that "incusos os attest --save" kept. No machine is asked.

Who checks what others have kept should have chosen the nonce: give it with --nonce. The
challenge shows something only to whoever has kept its secret to himself until it was
answered.`,
		Example: "  incusos attest verify node1.json --release measurements.json",
		Args:    operands("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			const what = "verify the proof"
			if err := osctl.Format(format).Validate(); err != nil {
				return cannot(what, err)
			}
			demands, err := d.demands()
			if err != nil {
				return cannot(what, err)
			}
			s, err := osctl.ReadAttestation(args[0], nonce)
			if err != nil {
				return cannot(what, err)
			}
			return cannot(what, s.Judge(demands, osctl.Printer{Out: c.OutOrStdout(), Format: osctl.Format(format)}))
		},
	}
	d.add(c)
	c.Flags().StringVar(&nonce, "nonce", "", "the proof has to be for this `NONCE`, hexadecimal (default: the one in the file)")
	c.Flags().StringVar(&format, "format", string(osctl.Table), "show the report as `FORMAT`: table, json, yaml")
	complete(c, "format", osctl.Formats()...)
	return c
}

func attestMeasureCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "measure DIR",
		Short: "Print what the newest build in DIR leaves in the registers of a TPM.",
		Long: `Print what the newest build in DIR leaves in the registers of a TPM: the digests of boot
loader and kernel image, which are measured into PCR 4, and PCR 11. "incusos repo publish"
puts the same beside the release, as measurements.json.`,
		Example: "  incusos attest measure build > measurements.json",
		Args:    operands("DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			const what = "measure the build"
			build, err := publish.FindBuild(args[0])
			if err != nil {
				return cannot(what, err)
			}
			m, err := publish.Measure(build)
			if err != nil {
				return cannot(what, err)
			}
			e := json.NewEncoder(c.OutOrStdout())
			e.SetIndent("", "  ")
			return cannot(what, e.Encode(m))
		},
	}
}
