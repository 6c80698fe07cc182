// Package metrics is the figures about the machine: how healthy it is, how full,
// and what waits to be done.
//
// They are read from what other parts of the daemon answer anyway, and shown in
// two forms that hold the same:
//
//	metrics.go  what the figures are read from
//	figure.go   which there are, with names and explanations
//	read.go     reading them
//	text.go     as text for Prometheus, over HTTP
//	report.go   as a document of the API
//
// A source that fails or hangs costs its own figures and no others; which one it
// was is a figure too. Nothing here is secret, since whoever can connect to the
// machine itself can read them. Package daemon supplies the sources and serves
// the text.
package metrics

import (
	"context"
	"time"

	"github.com/incusos/incusos/api"
)

// Sources is what figures are read from. What is nil has none.
type Sources struct {
	Environment func(context.Context) (api.Environment, error)
	Areas       func() []Area
	Warnings    func() []string
	Storage     func(context.Context) (api.SystemStorage, error)
	Tasks       func() []api.Task
	Trial       func() *api.Trial
	Files       Files // /proc
}

// Files is the file tree of the machine.
type Files interface {
	ReadFile(name string) ([]byte, error)
}

// An Area is how a part of the machine fares.
type Area struct {
	Name     string
	Degraded bool
	Since    time.Time // when it became so
}

const (
	// patience is how long a source may take. Incus waits five seconds for an
	// answer, and a pool without drives keeps those waiting who ask for it.
	patience = 3 * time.Second
	// fresh is how old figures of the storage may be: asking for them starts
	// programs.
	fresh = 30 * time.Second
)

// Metrics reads figures. Its methods may be called from several goroutines.
type Metrics struct {
	sources Sources
	storage *remembered[api.SystemStorage]
}

// New returns the figures of sources.
func New(s Sources) *Metrics {
	m := &Metrics{sources: s}
	if s.Storage != nil {
		m.storage = &remembered[api.SystemStorage]{read: s.Storage}
	}
	return m
}
