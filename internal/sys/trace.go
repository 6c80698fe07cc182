package sys

import (
	"path/filepath"
	"strings"
)

// A Step is one thing that was done to a tree, as a disk sees it. Until it is
// flushed, a cut may take it back, also when a later one stays.
type Step struct {
	Op   string // StepMake and so on
	Name string // as the machine sees it
	To   string // the new name, of StepRename and StepLink
}

// What a Step can be. Those of a name are flushed by StepFlushDir of its
// directory, StepWrite by StepFlush of the same file.
const (
	StepMake     = "make"            // an empty file, or a symlink
	StepMkdir    = "mkdir"           // one directory
	StepWrite    = "write"           // the content of a file is new
	StepFlush    = "flush"           // the content of a file is on disk
	StepRename   = "rename"          // a file has another name, and replaces what had it
	StepLink     = "link"            // a file has a name more
	StepRemove   = "remove"          // a name is gone, with all below it
	StepFlushDir = "flush directory" // the names in a directory are on disk
)

// WithTrace returns the same tree, which tells of each step once it is done. For
// tests of what a cut leaves; systest has a disk to go with it.
func (d Dir) WithTrace(told func(Step)) Dir {
	d.trace = told
	return d
}

func (d Dir) told(op, name, to string) {
	if d.trace != nil {
		d.trace(Step{op, name, to})
	}
}

// seen returns the name as the machine sees it of a path that is below the root.
func (d Dir) seen(path string) string {
	return filepath.Clean("/" + strings.TrimPrefix(path, filepath.Clean(d.root)))
}
