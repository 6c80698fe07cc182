package storage

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/incusos/incusos/internal/sys"
)

// The types below are the parts that matter of what OpenZFS 2.3 prints with
// -p -j --json-int (zpool-list(8), zpool-status(8), zfs-list(8)). Keys that are
// not named are ignored; a value of another type is refused, since a number
// read as zero would be believed.

// A prop is one property; its source is not of interest.
type prop[T any] struct {
	Value T `json:"value"`
}

// A count is a number of bytes. Properties that do not apply are printed as
// "-", and an absent quota as "none" or 0.
type count uint64

// UnmarshalJSON accepts a whole number and the two words.
func (c *count) UnmarshalJSON(b []byte) error {
	if string(b) == `"-"` || string(b) == `"none"` {
		*c = 0
		return nil
	}
	var n uint64
	if err := json.Unmarshal(b, &n); err != nil {
		return err
	}
	*c = count(n)
	return nil
}

// listed is a pool in `zpool list`.
type listed struct {
	State      string `json:"state"` // "ONLINE", "DEGRADED", "SUSPENDED", ...
	Properties struct {
		Size      prop[count] `json:"size"`
		Allocated prop[count] `json:"allocated"`
	} `json:"properties"`
}

// status is a pool in `zpool status`: its tree of devices by class.
type status struct {
	Vdevs   map[string]vdev `json:"vdevs"`
	Logs    map[string]vdev `json:"logs"`
	Cache   map[string]vdev `json:"l2cache"`
	Special map[string]vdev `json:"special"`
	Scan    *scan           `json:"scan_stats"`
}

type vdev struct {
	Name  string          `json:"name"`
	Type  string          `json:"vdev_type"` // "root", "mirror", "raidz", "disk", "file", ...
	Path  string          `json:"path"`      // of a leaf
	State string          `json:"state"`
	Vdevs map[string]vdev `json:"vdevs"`
}

type scan struct {
	Function string `json:"function"` // "SCRUB", "RESILVER", ...
	State    string `json:"state"`    // "SCANNING", "FINISHED", "CANCELED"
	Start    int64  `json:"start_time"`
	End      int64  `json:"end_time"`
	ToDo     count  `json:"to_examine"`
	Done     count  `json:"examined"`
	Errors   count  `json:"errors"`
}

// dataset is one in `zfs list`.
type dataset struct {
	Name       string `json:"name"`
	Pool       string `json:"pool"`
	Properties struct {
		Used       prop[count]  `json:"used"`
		Available  prop[count]  `json:"available"`
		Quota      prop[count]  `json:"quota"`
		Encryption prop[string] `json:"encryption"`
		KeyStatus  prop[string] `json:"keystatus"` // "available", "unavailable" or "-"
		Use        prop[string] `json:"incusos:use"`
	} `json:"properties"`
}

func (s *Storage) pools(ctx context.Context) (map[string]listed, error) {
	var doc struct {
		Pools map[string]listed `json:"pools"`
	}
	err := s.ask(ctx, &doc, "zpool", "list", "-p", "-j", "--json-int")
	return doc.Pools, err
}

func (s *Storage) statuses(ctx context.Context) (map[string]status, error) {
	var doc struct {
		Pools map[string]status `json:"pools"`
	}
	err := s.ask(ctx, &doc, "zpool", "status", "-p", "-j", "--json-int")
	return doc.Pools, err
}

// datasets returns the pools' own datasets and those directly below them.
func (s *Storage) datasets(ctx context.Context) (map[string]dataset, error) {
	var doc struct {
		Datasets map[string]dataset `json:"datasets"`
	}
	err := s.ask(ctx, &doc, "zfs", "list", "-p", "-j", "--json-int", "-d", "1", "-t", "filesystem,volume",
		"-o", "name,used,available,quota,encryption,keystatus,incusos:use")
	return doc.Datasets, err
}

// ask runs a tool of OpenZFS and decodes its answer into doc. Without a pool
// the tools may print a sentence instead of a document.
func (s *Storage) ask(ctx context.Context, doc any, name string, args ...string) error {
	out, err := s.host.Exec.Run(ctx, sys.Command(name, args...))
	if err != nil {
		return fmt.Errorf("asking %s %s: %w", name, args[0], err)
	}
	if out = bytes.TrimSpace(out); len(out) == 0 || out[0] != '{' {
		return nil
	}
	if err := json.Unmarshal(out, doc); err != nil {
		return fmt.Errorf("reading what %s %s printed: %w", name, args[0], err)
	}
	return nil
}
