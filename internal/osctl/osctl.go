// Package osctl is what `incusos os` does: it asks a machine with package client
// and shows people, or their scripts, what it says.
//
//	osctl.go     which machine, and what an exit status means
//	document.go  reading configurations, in YAML or JSON
//	change.go    planning, trying and confirming one
//	show.go      documents as tables, JSON or YAML
//	lists.go     tables of applications, tasks, log entries and so on
//	info.go      a machine at a glance
//	watch.go     tasks that are under way
//	storage.go   names of drives and pools, keys and sections of seeds
//	file.go      archives in files
//
// It knows no resource but by its path: what a configuration may hold is checked
// by the machine, which may be newer than this program. Flags are in cmd/incusos,
// looking for what ails a machine is not done here either.
package osctl

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"github.com/incusos/incusos/client"
)

// A Target is the machine to talk to.
type Target struct {
	Socket string // of the daemon, for the machine itself
	Remote string // address of another machine's Incus; "" for this machine
	Cert   string // file with the client's certificate; "" is that of the program incus
	Key    string // the same for its key
	Server string // file with the certificate of that Incus; "" if this system trusts it
}

// Connect returns the client of the machine. Nothing is asked yet.
func (t Target) Connect() (*client.Client, error) {
	if t.Remote == "" {
		return client.New(t.Socket), nil
	}
	var c client.Certificates
	var err error
	dir := incusDir()
	if c.Cert, err = os.ReadFile(cmp.Or(t.Cert, filepath.Join(dir, "client.crt"))); err != nil {
		return nil, Wrong(fmt.Errorf("reading the client's certificate: %w; name it with --cert", err))
	}
	if c.Key, err = os.ReadFile(cmp.Or(t.Key, filepath.Join(dir, "client.key"))); err != nil {
		return nil, Wrong(fmt.Errorf("reading the key of the client's certificate: %w; name it with --key", err))
	}
	if t.Server != "" {
		if c.Server, err = os.ReadFile(t.Server); err != nil {
			return nil, Wrong(fmt.Errorf("reading the machine's certificate: %w", err))
		}
	}
	m, err := client.Connect(t.Remote, c)
	return m, Wrong(err)
}

// incusDir is where the program incus keeps who its user is.
func incusDir() string {
	if dir := os.Getenv("INCUS_CONF"); dir != "" {
		return dir
	}
	config, err := os.UserConfigDir()
	if err != nil {
		return ""
	}
	return filepath.Join(config, "incus")
}

// What the program ends with.
const (
	Done    = 0
	Failed  = 1 // the machine could not do it
	Mistake = 2 // the command or the document is wrong; nothing was changed
	Pending = 3 // another change is waiting to be confirmed
)

// A coded error knows what the program ends with.
type coded struct {
	error
	code int
}

func (c coded) Unwrap() error { return c.error }

// Wrong returns err as a mistake of whoever wrote the command or the document.
func Wrong(err error) error {
	if err == nil {
		return nil
	}
	return coded{err, Mistake}
}

// Code is what the program ends with after err.
func Code(err error) int {
	if err == nil {
		return Done
	}
	if c, ok := errors.AsType[coded](err); ok {
		return c.code
	}
	if e, ok := errors.AsType[*client.Error](err); ok {
		switch e.Status {
		case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusPreconditionFailed, http.StatusRequestEntityTooLarge:
			return Mistake
		}
	}
	return Failed
}
