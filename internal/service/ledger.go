package service

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/incusos/incusos/internal/sys"
)

// A ledger is what a service has done since the machine started, which the
// machine itself does not show: with which files its units were started, and which
// connections are its own. Others, such as Incus, make connections too.
//
// It lies in /run, as what it is about ends with a restart. An entry that stands
// for a promise is made before the deed, one that stands for a result after it.
type ledger struct {
	files sys.Dir
	name  string
}

func (m machine) ledger() ledger {
	return ledger{m.Files, "/run/incus-os/service-" + m.name + ".json"}
}

// entries returns all there is. A ledger that cannot be read is empty: what it
// was about is then done once more.
func (l ledger) entries() map[string]string {
	all := make(map[string]string)
	b, err := l.files.ReadFile(l.name)
	if err == nil && json.Unmarshal(b, &all) != nil {
		clear(all)
	}
	return all
}

func (l ledger) get(key string) string { return l.entries()[key] }

// below returns the entries with a prefix, without it, sorted.
func (l ledger) below(prefix string) []string {
	var keys []string
	for _, key := range slices.Sorted(maps.Keys(l.entries())) {
		if rest, ok := strings.CutPrefix(key, prefix); ok {
			keys = append(keys, rest)
		}
	}
	return keys
}

func (l ledger) put(key, value string) error {
	all := l.entries()
	if old, ok := all[key]; ok && old == value {
		return nil
	}
	all[key] = value
	return l.write(all)
}

func (l ledger) forget(keys ...string) error {
	all := l.entries()
	before := len(all)
	for _, key := range keys {
		delete(all, key)
	}
	if len(all) == before {
		return nil
	}
	return l.write(all)
}

func (l ledger) write(all map[string]string) error {
	var err error
	if len(all) == 0 {
		if err = l.files.Remove(l.name); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	} else {
		b, marshalErr := json.Marshal(all)
		err = errors.Join(marshalErr, l.files.WriteFile(l.name, b, 0o600))
	}
	if err != nil {
		return fmt.Errorf("noting what was done: %w", err)
	}
	return nil
}
