// Update measures what an update costs: bytes and requests on the link, bytes on
// the disk, and time, against fetching files whole and against chunks that are cut
// by content (as casync and desync cut them).
//
//	go run ./bench/update                             changes that are made up
//	go run ./bench/update --old DIR --new DIR         two builds of the image
//
// Made-up changes have the sizes of real ones: the security update of nine packages
// is what was measured on an erofs of 276 MB, 2,746 of 67,420 blocks in 528 runs.
// The server is on this machine; --rate makes the link to it slower. The sum of the
// .deb files that changed, a practical limit, is given with --debs. Beside the seconds
// that an update takes stand those that the slower of disk and link needs at least: to
// write and sync the whole image, or to carry what is fetched at --rate.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"
)

func main() {
	var o options
	flag.StringVar(&o.old, "old", "", "measure from the build in this directory")
	flag.StringVar(&o.new, "new", "", "to the one in this")
	flag.Int64Var(&o.rate, "rate", 0, "MB a second that the link carries; 0: all there is")
	flag.Int64Var(&o.debs, "debs", 0, "bytes of the .deb files that changed")
	flag.IntVar(&o.blocks, "blocks", 67420, "size of made-up images in blocks of 4 KiB")
	flag.Parse()
	if err := run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "update:", err)
		os.Exit(1)
	}
}

type options struct {
	old, new string
	rate     int64
	debs     int64
	blocks   int
}

// A change is an image before and after.
type change struct {
	name        string
	old, new    []byte
	application bool
}

func run(ctx context.Context, o options) error {
	changes := madeUp(o.blocks)
	if o.old != "" || o.new != "" {
		var err error
		if changes, err = builds(o.old, o.new); err != nil {
			return err
		}
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "change\twhole MB\tchunks MB\tfetched MB\tof whole\trequests\twritten MB\tseconds\tat least\t")
	var all result
	whole, cut := int64(0), int64(0)
	for c := range changes {
		var r result
		if !c.application || !bytes.Equal(c.old, c.new) { // or the machine gives it another name
			var err error
			if r, err = measure(ctx, c, o); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
		pieces := chunked(c.old, c.new)
		row(w, c.name, int64(len(c.new)), pieces, r)
		whole, cut = whole+int64(len(c.new)), cut+pieces
		all = result{all.fetched + r.fetched, all.written + r.written, all.requests + r.requests, all.took + r.took, all.least + r.least}
	}
	if o.old != "" {
		row(w, "together", whole, cut, all)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if o.debs > 0 {
		fmt.Printf("%.2f times the %.2f MB of the packages\n", float64(all.fetched)/float64(o.debs), mb(o.debs))
	}
	return nil
}

func row(w io.Writer, name string, whole, chunks int64, r result) {
	fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%.2f\t%.1f %%\t%d\t%.1f\t%.2f\t%.2f\t\n", name, mb(whole), mb(chunks), mb(r.fetched),
		100*float64(r.fetched)/float64(whole), r.requests, mb(r.written), r.took.Seconds(), r.least.Seconds())
}

func mb(n int64) float64 { return float64(n) / 1e6 }

// A result is what a change cost.
type result struct {
	fetched, written int64 // bytes
	requests         int64
	took             time.Duration
	least            time.Duration // that the slower of disk and link needs for this
}
