package daemon

import (
	"context"
	"io"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/apps"
	"github.com/incusos/incusos/internal/change"
	"github.com/incusos/incusos/internal/rest"
)

// installed shows the applications; this release cannot change them.
type installed struct {
	err  error // why their document cannot be read
	apps *apps.Apps
}

func (i installed) Names(context.Context) ([]string, error) {
	all, err := i.documents()
	return sortedKeys(all), err
}

func (i installed) documents() (map[string]api.Application, error) {
	if i.err != nil {
		return nil, i.err
	}
	return i.apps.Documents()
}

func (i installed) Get(_ context.Context, name string) (any, error) {
	all, err := i.documents()
	if err != nil {
		return nil, err
	}
	doc, ok := all[name]
	if !ok {
		return nil, api.Errorf(api.NotFound, "application %q: not found; /1.0/applications lists what is installed", name)
	}
	return doc, nil
}

func (i installed) Config(name string) (any, error) {
	doc, err := i.Get(context.Background(), name)
	if err != nil {
		return nil, err
	}
	return doc.(api.Application).Config, nil
}

func (i installed) New(name string) (any, error) {
	_, err := i.Config(name)
	return new(api.ApplicationConfig), err
}

func (i installed) Plan(context.Context, string, any) (api.Plan, error) { return api.Plan{}, i.no() }
func (i installed) Try(context.Context, string, any, time.Duration) error {
	return i.no()
}
func (i installed) Confirm(context.Context, string) error        { return change.ErrNoTrial }
func (i installed) Reset(context.Context, string) error          { return i.no() }
func (i installed) Add(context.Context, string) error            { return i.no() }
func (i installed) Remove(context.Context, string) error         { return i.no() }
func (i installed) Restart(context.Context, string) error        { return i.no() }
func (i installed) Switch(context.Context, string, string) error { return i.no() }
func (i installed) CheckUpdate(context.Context, string) error    { return i.no() }
func (i installed) Act(context.Context, string, api.ApplicationAction) error {
	return i.no()
}

func (i installed) Debug(context.Context, string, string) (rest.Stream, error) {
	return rest.Stream{}, i.no()
}

func (i installed) Backup(context.Context, string, bool) (rest.Stream, error) {
	return rest.Stream{}, i.no()
}
func (i installed) Restore(context.Context, string, io.Reader) error { return i.no() }

func (installed) no() error {
	return api.Errorf(api.Unsupported, "applications cannot be changed over the API in this release")
}
