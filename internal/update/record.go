package update

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"

	"github.com/incusos/incusos/internal/repo"
	"github.com/incusos/incusos/internal/sys"
)

// A Phase is how far an update is. It is on disk before it begins.
type Phase string

// Phases, in their order. After the last the machine is idle again.
const (
	Idle     Phase = ""         // nothing is under way
	Fetching Phase = "fetching" // the slot that does not run is being written
	Staged   Phase = "staged"   // all is there; the boot loader gets its entry, then a restart is due
	Trying   Phase = "trying"   // the new version runs and is not found good yet
)

// A Record is what a machine remembers of its updates. Versions before and after
// this one read it too: fields are only ever added.
type Record struct {
	Phase   Phase  `json:"phase"`
	Version string `json:"version,omitempty"` // the one the phase is about
	Reason  string `json:"reason,omitempty"`  // why the last try was not good, as far as it could say

	StagedBy string `json:"staged_by,omitempty"` // id of the start in which it was staged; those after it try the version

	Blessed string             `json:"blessed,omitempty"` // highest version ever found good
	Failed  map[string]Failure `json:"failed,omitempty"`  // by version

	Source  string       `json:"source,omitempty"` // which root that an operator gave the next is of; "" is that of the image
	Trusted repo.Trusted `json:"trusted"`          // metadata of the repository
}

// A Failure is a version that did not work. It is not tried again by itself.
type Failure struct {
	Reason string   `json:"reason"`
	Log    []string `json:"log,omitempty"` // the last that its starts wrote, a line each; of the newest failure alone
}

// clone returns a record that can be changed.
func (r Record) clone() Record {
	r.Failed = maps.Clone(r.Failed)
	if r.Failed == nil {
		r.Failed = make(map[string]Failure)
	}
	return r
}

// recordFile is where the record is.
const recordFile = "/var/lib/incus-os/update-record.json"

// maxRecord is the most bytes a record may have; nearly all of it is metadata.
const maxRecord = 64 << 20

// File keeps the record in the machine's tree.
type File struct{ Files sys.Dir }

// Load implements Records. A machine that was never updated has the zero Record.
func (f File) Load() (r Record, err error) {
	info, err := f.Files.Stat(recordFile)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	if info.Size() > maxRecord {
		return r, fmt.Errorf("%s has %d bytes; want at most %d", recordFile, info.Size(), maxRecord)
	}
	b, err := f.Files.ReadFile(recordFile)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("%s: %w", recordFile, err)
	}
	return r, nil
}

// Save implements Records.
func (f File) Save(r Record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return f.Files.WriteFile(recordFile, append(b, '\n'), 0o600)
}
