package update_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/incusos/incusos/internal/sets"
	"github.com/incusos/incusos/internal/update"
	"github.com/incusos/incusos/internal/verity"
)

// A machine is one whose power fails at any moment. Its disk keeps what was
// flushed, and of the rest what it likes.
type machine struct {
	t *testing.T
	r *rand.Rand

	slots  [2]slot
	esp    map[string]update.Entry // by version; an entry is written by renaming, so it is whole
	record update.Record
	sets   sets.Saved
	links  sets.Set                // which images of applications are active
	store  map[sets.Image][]string // blocks of images of applications
	may    map[string][]sets.Set   // by version of the system: what it may be started with

	running int             // slot
	good    map[string]bool // versions that work
	soon    int             // effects until the power fails; negative: it does not
	cuts    int
	fault   string // what the machine, or an update, does wrong
	lost    int    // starts of the version that is offered that ended in a cut
}

// A slot is a partition with the blocks of a file system.
type slot struct {
	name   string
	blocks []string // what is read
	kept   []string // what is flushed
}

// blocksOf is how many blocks an image has.
const blocksOf = 6

// powerCut is what ends a run of the machine.
type powerCut struct{}

// effect is a moment at which the power may fail.
func (m *machine) effect() {
	if m.soon == 0 {
		panic(powerCut{})
	}
	m.soon--
}

// either lets the power fail before or after a change that is atomic.
func (m *machine) either(change func()) {
	m.effect()
	change()
	m.effect()
}

// cut is what the disk does when the power fails: each block that was not flushed
// is old, new or neither.
func (m *machine) cut() {
	m.cuts++
	for s := range m.slots {
		m.slots[s].blocks = m.torn(m.slots[s].blocks, m.slots[s].kept)
		m.slots[s].kept = slices.Clone(m.slots[s].blocks)
	}
}

func (m *machine) torn(cached, kept []string) []string {
	out := slices.Clone(kept)
	for i := range out {
		if cached[i] != kept[i] {
			out[i] = []string{kept[i], cached[i], "torn"}[m.r.IntN(3)]
		}
	}
	return out
}

func image(version string) []string {
	blocks := make([]string, blocksOf)
	for i := range blocks {
		blocks[i] = fmt.Sprint(version, " ", i)
	}
	return blocks
}

// Loader.
func (m *machine) Entries() ([]update.Entry, error) {
	return slices.Collect(maps.Values(m.esp)), nil
}

func (m *machine) Add(version string, tries int, uki []byte) error {
	if string(uki) != "kernel of "+version {
		m.t.Errorf("the kernel of %s is %q", version, uki)
	}
	m.either(func() { m.esp[version] = update.Entry{Version: version, Counted: true, Left: tries} })
	return nil
}

func (m *machine) Remove(e update.Entry) error {
	m.either(func() {
		if m.fault != "entries stay" {
			delete(m.esp, e.Version)
		}
	})
	return nil
}

func (m *machine) Bless(e update.Entry) error {
	m.either(func() { m.esp[e.Version] = update.Entry{Version: e.Version} })
	return nil
}

func (m *machine) Shelve(e update.Entry) error {
	m.either(func() { m.esp[e.Version] = update.Entry{Version: e.Version, Counted: true, Done: 1} })
	return nil
}

// Slots.
func (m *machine) other() *slot { return &m.slots[1-m.running] }

func (m *machine) Clear(context.Context) error {
	m.either(func() { m.other().name = "_empty" })
	return nil
}

func (m *machine) Name(_ context.Context, version string, _ verity.Digest) error {
	m.either(func() {
		if m.fault != "slots are not named" {
			m.other().name = version
		}
	})
	return nil
}

// Records.
func (m *machine) Load() (update.Record, error) { return m.record, nil }

func (m *machine) Save(r update.Record) error {
	m.either(func() { m.record = r })
	return nil
}

// A release is what the machine installs.
type release struct {
	m       *machine
	version string
}

func (c release) Version() string { return c.version }

// Applications are Incus, and ovn, which not every release has.
func (c release) Applications() sets.Set {
	set := sets.Set{"incus": c.version, "ovn": c.version}
	if last := c.version[len(c.version)-3]; last%2 == 0 {
		set["ovn"] = c.m.links["ovn"]
	}
	c.m.may[c.version] = []sets.Set{set}
	return set
}

func (c release) Slot(context.Context) (verity.Digest, error) {
	s := c.m.other()
	for i, b := range image(c.version) {
		if s.blocks[i] != b {
			s.blocks[i] = b
			c.m.effect()
		}
	}
	if c.m.fault != "slots are not flushed" {
		s.kept = slices.Clone(s.blocks)
	}
	c.m.effect()
	return verity.Digest{}, nil
}

func (c release) Application(_ context.Context, name string) error {
	c.m.either(func() {
		if c.m.fault != "applications are not stored" {
			c.m.store[sets.Image{Name: name, Version: c.version}] = image(name + c.version)
		}
	})
	return nil
}

func (c release) Kernel(context.Context) ([]byte, error) {
	return []byte("kernel of " + c.version), nil
}

// errBrick is a machine that starts nothing any more.
var errBrick = errors.New("no version starts")

// boot is what firmware, boot loader and kernel do until a daemon runs: the entry
// that counts no tries or has some left and is the newest; then those without.
func (m *machine) boot() (string, error) {
	for range 10 {
		entries := slices.Collect(maps.Values(m.esp))
		slices.SortFunc(entries, func(a, b update.Entry) int {
			switch {
			case a.Exhausted() != b.Exhausted():
				if a.Exhausted() {
					return 1
				}
				return -1
			case a.Version > b.Version:
				return -1
			}
			return 1
		})
		if len(entries) == 0 {
			return "", errBrick
		}
		e := entries[0]
		if e.Counted && e.Left > 0 {
			e.Left, e.Done = e.Left-1, e.Done+1
			m.esp[e.Version] = e
		}
		started, err := m.start(e.Version)
		if err != nil {
			return "", err
		}
		if started && (m.good[e.Version] || m.r.IntN(2) == 0) { // a bad one panics early, or comes as far as its daemon
			return e.Version, nil
		}
		if !e.Counted {
			return "", fmt.Errorf("version %s was found good and does not start: %w", e.Version, errBrick)
		}
	}
	return "", errBrick
}

// start mounts the slot of a version, and has the links lead to its set. Both must be
// there whole.
func (m *machine) start(version string) (bool, error) {
	s := slices.IndexFunc(m.slots[:], func(s slot) bool { return s.name == version })
	if s < 0 {
		return false, fmt.Errorf("version %s has an entry and no slot", version)
	}
	if !slices.Equal(m.slots[s].blocks, image(version)) {
		return false, fmt.Errorf("the slot of version %s has %q", version, m.slots[s].blocks)
	}
	m.point(m.sets.Systems[version].Now)
	if err := m.complete(version, m.links); err != nil {
		return false, err
	}
	m.running = s
	return true, nil
}

// interim is a bad version just before another.
func interim(offered string) string { return offered[:11] + string(offered[11]-1) }

// run is the daemon of a version, from its start until it restarts the machine or
// has nothing to do. Offered is the newest version of the repository.
func (m *machine) run(version, offered string) (restart bool, err error) {
	m.prune()
	u := &update.Updater{Running: version, Loader: m, Slots: m, Records: m, Sets: m}
	what, err := u.Settle(m.t.Context(), func(context.Context) error {
		if m.effect(); !m.good[version] {
			return errors.New("Incus does not answer")
		}
		return nil
	})
	if err != nil || what == update.Bad || what == update.Restart {
		return true, err
	}
	if _, failed := m.record.Failed[offered]; failed || offered <= version || offered <= m.record.Blessed {
		return false, m.alone(version)
	}
	if between := interim(offered); m.r.IntN(4) == 0 && between > version {
		// Another one was staged before, which nobody got round to starting.
		if err := u.Stage(m.t.Context(), release{m: m, version: between}); err != nil && !errors.Is(err, update.ErrFailed) {
			return false, err
		}
	}
	if err := u.Stage(m.t.Context(), release{m: m, version: offered}); err != nil {
		return false, err
	}
	return true, nil
}

// life installs versions one after the other, of which some are bad, with the power
// failing after every few effects, and returns what must not have been.
func (m *machine) life(versions int) error {
	const first = "202601010000"
	m.slots = [2]slot{{name: first, blocks: image(first), kept: image(first)}, {name: "_empty", blocks: make([]string, blocksOf), kept: make([]string, blocksOf)}}
	m.esp = map[string]update.Entry{first: {Version: first}}
	m.record = update.Record{Blessed: first}
	m.links = sets.Set{"incus": first, "ovn": first}
	m.sets = m.sets.Runs(first, m.links)
	m.may = map[string][]sets.Set{first: {maps.Clone(m.links)}}
	m.store = make(map[sets.Image][]string)
	for name, v := range m.links {
		m.store[sets.Image{Name: name, Version: v}] = image(name + v)
	}
	m.good = map[string]bool{first: true}
	best := first
	for i := range versions {
		offered := fmt.Sprintf("20260201%02d01", i)
		m.good[offered] = m.r.IntN(3) > 0
		if err := m.until(offered, best); err != nil {
			return err
		}
		if m.good[offered] {
			best = offered
		}
	}
	return nil
}

// until lets the machine live until it has installed a version, or refused it. Good
// is what it may run beside that.
func (m *machine) until(offered, good string) error {
	m.lost = 0
	for starts := range 300 {
		m.soon = -1
		if starts < 200 {
			m.soon = m.r.IntN(40)
		}
		done, err := m.once(offered, good)
		if done || err != nil {
			return err
		}
	}
	return fmt.Errorf("version %s is neither installed nor refused", offered)
}

// once is from one start of the machine to the next.
func (m *machine) once(offered, good string) (done bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			if _, ok := p.(powerCut); !ok {
				panic(p)
			}
			m.cut()
			if m.record.Phase == update.Trying || m.record.Phase == update.Staged {
				m.lost++
			}
		}
	}()
	version, err := m.boot()
	if err != nil {
		return false, err
	}
	if version != good && version != offered && version != interim(offered) {
		return false, fmt.Errorf("version %s starts; want %s or %s", version, good, offered)
	}
	restart, err := m.run(version, offered)
	if restart || err != nil {
		return false, err
	}
	_, failed := m.record.Failed[offered]
	if m.good[offered] && failed && version == good && m.lost >= 3 {
		m.good[offered] = false // three cuts in a row look like three crashes
	}
	if m.good[offered] && (version != offered || failed) || !m.good[offered] && (version != good || !failed) {
		return false, fmt.Errorf("version %s, which is good: %v, ends with %s running, refused: %v", offered, m.good[offered], version, failed)
	}
	if m.record.Phase != update.Idle {
		return false, fmt.Errorf("the record is %+v", m.record)
	}
	return true, m.ready()
}
