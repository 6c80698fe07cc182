package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/incusos/incusos/internal/sys"
)

const (
	minMemory = 2 << 30 / 10 * 9 // 2 GiB, less what firmware and kernel keep for themselves
	minTarget = 16e9             // two slots and the ESP are 3.2 GB; root and some room for data

	incomplete = "incusos-incomplete" // name of the first partition until all is done
)

// A plan is what an install will do. Making it changes nothing.
type plan struct {
	source source
	target sys.Disk
}

// preflight refuses what cannot work or was not asked for, and says what would
// have to change.
func preflight(ctx context.Context, host sys.Host, r Request) (plan, error) {
	if err := enoughMemory(host.Files); err != nil {
		return plan{}, err
	}
	src, err := readSource(ctx, host, r.Source)
	if err != nil {
		return plan{}, fmt.Errorf("reading the install medium %s: %w", r.Source.Path, err)
	}
	disks, err := sys.Disks(host.Files)
	if err != nil {
		return plan{}, err
	}
	target, err := Select(disks, r.Source.Name, r.Seed.Target)
	if err != nil {
		return plan{}, err
	}
	if target.Size < minTarget {
		return plan{}, fmt.Errorf("%s has %s; want %s or more", target.IDs[0], gigabytes(target.Size), gigabytes(minTarget))
	}
	switch {
	case interrupted(target):
		return plan{src, target}, nil
	case r.Seed.ForceInstall:
		return plan{src, target}, confirmed(r, target)
	}
	if err := notYetDone(host.Files); err != nil {
		return plan{}, err
	}
	return plan{src, target}, empty(host.Files, target)
}

func enoughMemory(files sys.Dir) error {
	b, err := files.ReadFile("/proc/meminfo")
	if err != nil {
		return fmt.Errorf("measuring memory: %w", err)
	}
	var kib uint64
	if _, err := fmt.Sscanf(string(b), "MemTotal: %d kB", &kib); err != nil {
		return fmt.Errorf("measuring memory: /proc/meminfo does not begin with MemTotal: %w", err)
	}
	if kib<<10 < minMemory {
		return fmt.Errorf("the machine has %d MiB of memory; want 2048 MiB", kib>>10)
	}
	return nil
}

// confirmed refuses to destroy a system that somebody uses, unless the seed says
// which one it is: a medium that was left in a machine, or that is put into the
// next one by mistake, must not.
func confirmed(r Request, target sys.Disk) error {
	if r.Holds == nil {
		return nil
	}
	id, err := r.Holds(target)
	if err != nil {
		return fmt.Errorf("looking which system is on %s: %w", target.Path, err)
	}
	given := r.Seed.ForceInstallConfirmation
	switch {
	case id == "" || given == id:
		return nil
	case given == "":
		return fmt.Errorf("%s holds the system of a machine whose id begins with %s; set `force_install_confirmation: %q` beside `force_install` in the install seed to destroy it", target.IDs[0], id, id)
	}
	return fmt.Errorf("%s holds the system of a machine whose id begins with %s, and not the one that `force_install_confirmation` in the install seed says, %s; is this the right machine?", target.IDs[0], id, given)
}

// interrupted reports whether the disk holds an install that was cut.
func interrupted(d sys.Disk) bool {
	return slices.ContainsFunc(d.Partitions, func(p sys.Partition) bool { return p.Number == espNumber && p.Label == incomplete })
}

// Forget removes the mark of a complete install, which has done its work once
// the installed system starts.
func Forget(files sys.Dir) error { return sys.DeleteVariable(files, doneName, doneVendor) }

// notYetDone refuses to install a second time from a medium that was left in.
func notYetDone(files sys.Dir) error {
	_, err := sys.ReadVariable(files, doneName, doneVendor)
	if err == nil {
		return errors.New("this machine is already installed; remove the install medium and start it again, or set `force_install: true` in the install seed")
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// empty refuses a disk with data on it.
func empty(files sys.Dir, d sys.Disk) error {
	f, err := files.Open(d.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	what, err := contents(f, d.Size)
	if err != nil {
		return fmt.Errorf("looking for data on %s: %w", d.IDs[0], err)
	}
	if what != "" {
		return fmt.Errorf("%s holds data (%s); set `force_install: true` in the install seed to destroy it", d.IDs[0], what)
	}
	return nil
}

// A source is what an install medium holds, as far as it is copied.
type source struct {
	esp, sig, verity, usr part
}

// A part is a partition of the source.
type part struct {
	Node  string `json:"node"`
	Type  string `json:"type"`  // GUID
	UUID  string `json:"uuid"`  // GUID
	Name  string `json:"name"`  // label
	Attrs string `json:"attrs"` // as sfdisk writes them
	Size  uint64 `json:"size"`  // in sectors from sfdisk, in bytes from readSource
}

// readSource finds the five partitions an install medium has: the ESP, the seed
// and one slot.
func readSource(ctx context.Context, host sys.Host, d sys.Disk) (source, error) {
	out, err := host.Exec.Run(ctx, sys.Command("sfdisk", "--json", d.Path))
	if err != nil {
		return source{}, err
	}
	var doc struct {
		Table struct {
			Sector     uint64 `json:"sectorsize"`
			Partitions []part `json:"partitions"`
		} `json:"partitiontable"`
	}
	if err := json.Unmarshal(out, &doc); err != nil {
		return source{}, fmt.Errorf("reading what sfdisk printed: %w", err)
	}
	parts := doc.Table.Partitions
	for i := range parts {
		parts[i].Size *= doc.Table.Sector
	}
	if !slices.ContainsFunc(parts, func(p part) bool { return p.Name == "seed-data" }) {
		return source{}, errors.New("it has no partition named seed-data; is it an install medium?")
	}
	return sortParts(parts)
}

// sortParts picks the partitions to copy by their types.
func sortParts(parts []part) (s source, err error) {
	for _, w := range []struct {
		into *part
		what string
		want func(kind) string
	}{
		{&s.usr, "usr", func(k kind) string { return k.usr }},
		{&s.verity, "usr-verity", func(k kind) string { return k.verity }},
		{&s.sig, "usr-verity-sig", func(k kind) string { return k.sig }},
		{&s.esp, "esp", func(kind) string { return espType }},
	} {
		found := slices.DeleteFunc(slices.Clone(parts), func(p part) bool {
			return p.Name == emptySlot || !slices.ContainsFunc(kinds(), func(k kind) bool { return strings.EqualFold(w.want(k), p.Type) })
		})
		if len(found) != 1 {
			return source{}, fmt.Errorf("it has %d partitions of type %s; want 1", len(found), w.what)
		}
		*w.into = found[0]
	}
	return s, s.fits()
}

// fits refuses a slot that is larger than ours.
func (s source) fits() error {
	for _, p := range []struct {
		part
		limit uint64
	}{{s.usr, usrSize}, {s.verity, veritySize}, {s.sig, sigSize}} {
		if p.Size > p.limit {
			return fmt.Errorf("its partition %s has %d bytes; a slot takes %d", p.Name, p.Size, p.limit)
		}
	}
	return nil
}
