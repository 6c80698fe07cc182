// Package update brings a machine from one version to the next, and back if the
// next does not work.
//
// A machine has two slots, of which one runs. A new version goes into the other,
// is verified as a whole, and only then gets an entry in the boot loader, which
// tries it a few times. If it is not found good by then, the old one starts again
// by itself. What is written in which order is all that this rests on; stage.go
// says why each step is where it is, and a test cuts the power between any two.
//
//	update.go   what an update needs of the machine
//	record.go   what is remembered: phase, failed versions
//	stage.go    from a release to an entry in the boot loader
//	settle.go   what became of it, after a restart
//	entries.go  the entries of the boot loader, as files on the ESP
//	slots.go    the slots, as partitions
//	image.go    making one image of what is there and what is fetched
//	contents.go a release, written to this disk as it is fetched
//	applications.go  which applications a version gets, and new ones for the version that runs
//	windows.go  when updates may be made
//	agent.go    does all of the above when it is time to, and says how it goes
//	check.go    looks for an update, and has it staged
//	back.go     goes back when somebody asks, and forgives
//	repair.go   brings what is damaged back to what was released
//	turn.go     one thing at a time
//
// What may be installed is said by package repo, and fetched by package fetch; which
// blocks are missing, by package verity. Which applications belong to which version
// is kept by package sets. Package daemon decides when, and whether a version is good.
package update

import (
	"context"
	"fmt"
	"slices"

	"github.com/incusos/incusos/internal/sets"
	"github.com/incusos/incusos/internal/verity"
)

// A Loader is the boot loader. What its methods change is on disk when they return.
type Loader interface {
	// Entries returns the entries of all versions.
	Entries() ([]Entry, error)
	// Add adds an entry that may be tried so many times. It is there whole or
	// not at all.
	Add(version string, tries int, uki []byte) error
	// Remove removes an entry.
	Remove(Entry) error
	// Bless makes an entry one that counts no tries.
	Bless(Entry) error
	// Shelve makes an entry one that is started only if there is no other.
	Shelve(Entry) error
}

// An Entry is a version that the boot loader can start.
type Entry struct {
	Version string
	Counted bool // it is being tried
	Left    int  // tries that are left
	Done    int  // tries that were made
}

// Exhausted reports whether an entry was tried in vain: the boot loader takes any
// other before it.
func (e Entry) Exhausted() bool { return e.Counted && e.Left == 0 }

// Slots are the places for file systems. What its methods change is on disk when
// they return.
type Slots interface {
	// Clear makes the slot that does not run one that nobody starts.
	Clear(ctx context.Context) error
	// Name makes it the slot of a version, found by its root hash.
	Name(ctx context.Context, version string, root verity.Digest) error
}

// Contents are the files of a release. Its methods may be called again after any
// failure, and then do what is left.
type Contents interface {
	Version() string
	// Applications returns the set of it: the versions of the images that belong to
	// it, by the names of the applications. Some may be those that run already.
	Applications() sets.Set
	// Slot makes the slot that does not run the file system of the release. It
	// returns the root hash that it has verified and found signed.
	Slot(ctx context.Context) (verity.Digest, error)
	// Application stores the image of an application of its own version, verified.
	Application(ctx context.Context, name string) error
	// Kernel returns the kernel with its initrd and command line, verified.
	Kernel(ctx context.Context) ([]byte, error)
}

// Records keep the record of a machine. Save is durable when it returns; after a
// cut the old or the new record is there.
type Records interface {
	Load() (Record, error)
	Save(Record) error
}

// Sets remember which images of applications belong to which version (package
// sets). Stage is durable when it returns; after a cut the old or the new is there.
type Sets interface {
	Stage(running, version string, set sets.Set) error
}

// An Updater updates one machine. Its methods must not be called at the same time.
type Updater struct {
	Running string // the version that runs
	Loader  Loader
	Slots   Slots
	Records Records
	Sets    Sets

	// Bind has the disk unlock for a start of this kernel too, or says why it would
	// not. Nil: the disk needs nobody to unlock it.
	Bind func(ctx context.Context, uki []byte) error

	// Unlocks says why a start of a version that is there would not unlock the disk by
	// itself. Nil: the disk needs nobody to unlock it.
	Unlocks func(version string) error
}

// tries is how often a new version may start before the old one comes back.
const tries = 3

// entry returns the entry of a version.
func (u *Updater) entry(version string) (Entry, bool, error) {
	entries, err := u.Loader.Entries()
	if err != nil {
		return Entry{}, false, fmt.Errorf("reading the entries of the boot loader: %w", err)
	}
	i := slices.IndexFunc(entries, func(e Entry) bool { return e.Version == version })
	if i < 0 {
		return Entry{}, false, nil
	}
	return entries[i], true, nil
}
