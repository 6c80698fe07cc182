package osctl

import (
	"context"
	"fmt"
	"strings"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/client"
)

// Doctor shows whether the next start will unlock the disk by itself, what stands in
// the way, and what it depends on.
func Doctor(ctx context.Context, c *client.Client, p Printer) error {
	d, err := c.Doctor(ctx)
	if err != nil {
		return err
	}
	if p.Format != Table {
		return p.Value(d)
	}
	fmt.Fprintln(p.Out, visible(d.Verdict))
	for _, f := range d.Findings {
		mark := "-"
		if f.Serious {
			mark = "!"
		}
		fmt.Fprintf(p.Out, "%s %s.\n  %s\n", mark, visible(f.What), visible(f.Do))
	}
	for _, t := range []struct {
		head string
		rows [][]string
	}{
		{"kernel image|running|signed by|next start", kernelRows(d.Kernels)},
		{"key slot|pin|one image|this start|next start", bindingRows(d.Bindings)},
		{"variable|certificate|ours|fingerprint", certificateRows(d.Certificates)},
		{"pcr|measured, and at the next start|event", eventRows(d)},
	} {
		fmt.Fprintln(p.Out)
		if err := p.table(t.head, t.rows); err != nil {
			return err
		}
	}
	return nil
}

func kernelRows(kernels []api.DoctorKernel) [][]string {
	var rows [][]string
	for _, k := range kernels {
		rows = append(rows, []string{k.File, yes(k.Running), k.Signer, opens(k.Why)})
	}
	return rows
}

func bindingRows(bindings []api.DoctorBinding) [][]string {
	var rows [][]string
	for _, b := range bindings {
		rows = append(rows, []string{fmt.Sprint(b.Slot), yes(b.PIN), yes(b.Image), opens(b.Now), opens(b.Next)})
	}
	return rows
}

func opens(why string) string {
	if why == "" {
		return "unlocks"
	}
	return why
}

func certificateRows(certificates []api.DoctorCertificate) [][]string {
	var rows [][]string
	for _, c := range certificates {
		rows = append(rows, []string{c.Type, c.Subject, yes(c.Ours), c.Fingerprint})
	}
	return rows
}

// eventRows lists registers and their events: one digest where it stays, two where it
// does not.
func eventRows(d api.SecureBootDoctor) [][]string {
	var rows [][]string
	for _, r := range d.PCRs {
		rows = append(rows, []string{fmt.Sprint(r.PCR), change(r.Measured, r.Expected), "what the TPM holds"})
		if r.Replayed != r.Measured {
			rows = append(rows, []string{fmt.Sprint(r.PCR), short(r.Replayed), "what the events lead to"})
		}
		for _, e := range d.Events {
			if e.PCR == r.PCR {
				rows = append(rows, []string{"", change(e.Measured, e.Expected), e.About})
			}
		}
	}
	return rows
}

func change(now, next string) string {
	if now == next {
		return short(now)
	}
	return short(now) + " -> " + short(next)
}

// short is the beginning of a digest, which tells it from others.
func short(digest string) string {
	if digest == "" {
		return "(none)"
	}
	return strings.ToLower(digest[:min(len(digest), 12)])
}
