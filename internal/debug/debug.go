// Package debug looks into the machine for whoever searches for a fault.
//
// It reads and changes nothing, but for scripts that the support key signed:
//
//	kernel.go     the kernel, its modules and what the processor can do
//	log.go        entries of the journal
//	recent.go     the newest, to be looked at
//	failed.go     those of starts that failed
//	processes.go  what runs, as a table; process.go reads one of them
//	eventlog.go   what was measured while the machine started
//	bundle.go     all of that and more as one archive
//	script.go     a signed script, run
//	smime.go      the form such a script comes in
//
// Only the journal and scripts need another program; everything else is read
// from where the kernel shows it. Figures about the machine are the business of
// package metrics, documents that of the areas; package daemon puts both into
// the bundle as Parts.
package debug

import "github.com/incusos/incusos/internal/sys"

// A Debug looks into one machine. Its methods may be called from several
// goroutines.
type Debug struct {
	host sys.Host
}

// New returns the Debug of a machine.
func New(host sys.Host) *Debug { return &Debug{host} }
