// Package rest translates between HTTP and the machine.
//
// The API is a list of Routes, each with everything that is known about it: what
// it is for, which documents go in and come out, and the endpoint that answers.
// The mux, the reference pages, the OpenAPI description and the golden list of
// the API are made from that list, so that none can fall behind.
//
//	rest.go      Machine: what the routes answer from
//	route.go     a Route, and finding the one for a request
//	resource.go  the routes of a document that can be read and changed
//	family.go    the same for documents that have names: services, applications
//	system.go    the routes of /1.0/system; others are in files of their names
//	decode.go    strict reading of what clients send
//	envelope.go  answers, errors and status codes
//	audit.go     what is written down about a request
//
// An endpoint reads, calls one function of Machine and returns a value or an
// error. There is no state here, no goroutine, and no decision that another
// caller of the same function would not get.
//
// The daemon listens; incusd passes on what clients send to /os. It asks for
// /1.0/services/* itself while it starts and waits for the answer without a
// time limit, so nothing there may wait for anything.
package rest

import (
	"context"
	"io"
	"time"

	"github.com/incusos/incusos/api"
)

// A Machine is what the routes answer from; package daemon supplies it. What is
// nil stands for something that this machine does not do: its routes answer 501.
type Machine struct {
	Environment func(context.Context) (api.Environment, error)

	FallbackListener Resource[api.SystemFallbackListener, api.SystemFallbackListenerConfig]
	Kernel           Resource[api.SystemKernel, api.SystemKernelConfig]
	Logging          Resource[api.SystemLogging, api.SystemLoggingConfig]
	Network          Resource[api.Network, api.NetworkConfig]
	Provider         Resource[api.SystemProvider, api.SystemProviderConfig]
	Security         Resource[api.SystemSecurity, api.SystemSecurityConfig]
	Storage          Resource[api.SystemStorage, api.SystemStorageConfig]
	Update           Resource[api.SystemUpdate, api.SystemUpdateConfig]

	// Actions are the routes that only do something, by their path, such as
	// "/1.0/system/storage/:wipe-drive". A path without an entry answers 501.
	Actions map[string]Action

	Resources    func(context.Context) (api.Resources, error)
	Attest       func(ctx context.Context, nonce, credential string) (api.Attestation, error)
	Applications Applications
	Services     Family
	Tasks        Tasks
	Debug        Debug
	Power        Power
	Backup       Backup
	Audit        Audit
	Trial        func() *api.Trial // what waits to be confirmed; nil: nothing
}

// An Action does something once. The body is the request's, complete and at most
// 1 MiB; an action that takes nothing ignores it.
type Action func(ctx context.Context, body []byte) error

// A Resource is a configuration and what the machine makes of it. D is its
// document, C the configuration in it. Package change has what Plan, Try and
// Confirm promise.
type Resource[D, C any] interface {
	Get(context.Context) (D, error)
	Config() (C, error) // in force
	Plan(context.Context, C) (api.Plan, error)
	Try(ctx context.Context, config C, within time.Duration) error
	Confirm(context.Context) error
}

// A Family is resources of one kind that go by names. Configurations are
// pointers, as New returns them. A name that there is none of is an api.NotFound.
type Family interface {
	Names(context.Context) ([]string, error)
	Get(ctx context.Context, name string) (any, error)
	Config(name string) (any, error)
	New(name string) (any, error) // an empty configuration, to decode into
	Plan(ctx context.Context, name string, config any) (api.Plan, error)
	Try(ctx context.Context, name string, config any, within time.Duration) error
	Confirm(ctx context.Context, name string) error
	Reset(ctx context.Context, name string) error
}

// Applications is a Family with more to do.
type Applications interface {
	Family
	Add(ctx context.Context, name string) error
	Remove(ctx context.Context, name string) error
	Restart(ctx context.Context, name string) error
	Switch(ctx context.Context, name, version string) error
	CheckUpdate(ctx context.Context, name string) error
	Act(ctx context.Context, name string, action api.ApplicationAction) error
	Debug(ctx context.Context, name string, action string) (Stream, error)
	Backup(ctx context.Context, name string, complete bool) (Stream, error)
	Restore(ctx context.Context, name string, archive io.Reader) error
}

// Tasks is the work that takes longer than a request.
type Tasks interface {
	List() []api.Task // newest first
	Get(id string) (api.Task, error)
	Cancel(id string) error
}

// Debug looks into the machine.
type Debug interface {
	Kernel(context.Context) (api.DebugKernel, error)
	Log(context.Context, api.DebugLogQuery) ([]api.LogEntry, error)
	Processes(context.Context) (string, error)
	Report(ctx context.Context, match []string) (api.DebugReport, error)
	EventLog(context.Context) (api.SecureBootEventLog, error)
	Doctor(context.Context) (api.SecureBootDoctor, error)
	Bundle(context.Context) (Stream, error)
	Script(ctx context.Context, message []byte) (output string, err error) // signed
}

// Power turns the machine off and on. Each asks for it and does not wait.
type Power interface {
	Reboot(context.Context) error
	Poweroff(context.Context) error
	Suspend(context.Context) error
}

// Backup keeps the machine's own configuration. What Restore and FactoryReset do
// counts from the next start on, which follows the answer.
type Backup interface {
	Backup(context.Context) (Stream, error)
	Restore(ctx context.Context, archive io.Reader, skip []string) error
	FactoryReset(context.Context, api.SystemReset) error
}

// Audit keeps the log of changes, and of who read secrets.
type Audit interface {
	Record(context.Context, api.AuditEntry)
	RecordOnce(context.Context, api.AuditEntry) // unless there was such an action by the same in this boot
	Entries(ctx context.Context, newest int) ([]api.AuditEntry, error)
}

// A Stream is an answer that is no document. Write is called once; what it
// writes before it fails has been sent already, so that failures which can be
// foreseen belong before the Stream is returned.
type Stream struct {
	MediaType string // "application/gzip" or "application/octet-stream": clients take no other
	Write     func(io.Writer) error
}
