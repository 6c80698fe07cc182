package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/change"
	"github.com/incusos/incusos/internal/rest"
	"github.com/incusos/incusos/internal/task"
	"github.com/incusos/incusos/internal/update"
)

// Kinds of tasks about updates.
const (
	checkTask  = "update.check"  // somebody asked to look for one
	stageTask  = "update.stage"  // one was found when it was time to look
	repairTask = "update.repair" // somebody asked to look for damage
)

// kinds are the tasks about updates. None is resumed after a restart: what was
// fetched stays, and the agent looks again.
func (u *updates) kinds() []task.Kind {
	return []task.Kind{
		{Name: checkTask, Cancel: true, Run: func(ctx context.Context, _ json.RawMessage, p *task.Progress) error { return u.agent.Check(ctx, p) }},
		{Name: repairTask, Cancel: true, Run: func(ctx context.Context, _ json.RawMessage, p *task.Progress) error { return u.agent.Repair(ctx, p) }},
		{Name: stageTask, Cancel: true, Run: func(ctx context.Context, _ json.RawMessage, p *task.Progress) error {
			select {
			case do := <-u.pending:
				return do(ctx, p)
			default:
				return errors.New("there is nothing to do")
			}
		}},
	}
}

// asTask does something as a task, and cancels that when ctx ends. The agent does
// one thing at a time.
func (u *updates) asTask(ctx context.Context, description string, do func(context.Context, update.Meter) error) error {
	var result error
	u.pending <- func(ctx context.Context, m update.Meter) error {
		result = do(ctx, m)
		return result
	}
	t, err := u.tasks.Start(stageTask, description, nil)
	if err != nil {
		<-u.pending
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = u.tasks.Cancel(t.ID) }) // where that does not work, it has ended
	defer stop()
	end, err := u.tasks.Wait(context.WithoutCancel(ctx), t.ID)
	switch {
	case err != nil:
		return err
	case result == nil && end.Status != api.TaskDone:
		return errors.New("it was cancelled")
	}
	return result
}

// actions are what can be done about updates beside configuring them. When is the
// configuration.
func (u *updates) actions(when *managed[api.SystemUpdate, api.SystemUpdateConfig]) map[string]rest.Action {
	const dir = "/1.0/system/update/"
	return map[string]rest.Action{
		dir + ":check":  withDocument(u.check),
		dir + ":repair": func(context.Context, []byte) error { return u.repair() },
		dir + ":pause":  func(ctx context.Context, _ []byte) error { return pause(ctx, when, true) },
		dir + ":resume": func(ctx context.Context, _ []byte) error { return pause(ctx, when, false) },
		dir + ":forgive": withDocument(func(_ context.Context, f api.UpdateForgive) error {
			defer u.changed() // the console has one complaint less
			return refusal(u.agent.Forgive(f.Version))
		}),
		dir + ":rollback": withDocument(func(ctx context.Context, r api.UpdateRollback) error {
			return refusal(u.agent.GoBack(ctx, r.Reboot))
		}),
	}
}

// withDocument returns an action that takes a document, or nothing.
func withDocument[T any](act func(context.Context, T) error) rest.Action {
	return func(ctx context.Context, body []byte) error {
		var doc T
		if len(bytes.TrimSpace(body)) > 0 {
			d := json.NewDecoder(bytes.NewReader(body))
			d.DisallowUnknownFields()
			if err := d.Decode(&doc); err != nil {
				return api.Errorf(api.Invalid, "the request: %v", err)
			}
		}
		return act(ctx, doc)
	}
}

// refusal says what kind of error it is if something cannot be done now.
func refusal(err error) error {
	for _, known := range []error{update.ErrBusy, update.ErrNothing, update.ErrNotFailed, update.ErrPaused} {
		if errors.Is(err, known) {
			return api.Errorf(api.Conflict, "%v", err)
		}
	}
	return err
}

// check is the action that looks for updates now. What takes its time goes on after
// the answer; what cannot be is said at once.
func (u *updates) check(ctx context.Context, c api.UpdateCheck) error {
	s, err := u.settings()
	switch {
	case err != nil:
		return err
	case s.Paused:
		return refusal(update.ErrPaused)
	case s.Server == "" && rescueDevice(u.host.Files) == "":
		return noRepository()
	case c.OSOnly:
		return refusal(u.agent.CheckSystem(ctx))
	case u.tasks.Busy(checkTask) != nil:
		return nil // that is done at this moment
	}
	_, err = u.tasks.Start(checkTask, "look for an update", nil)
	return err
}

// repair is the action that looks for damage.
func (u *updates) repair() error {
	s, err := u.settings()
	if err == nil && s.Server == "" {
		err = noRepository()
	}
	if err != nil {
		return err
	}
	_, err = u.tasks.Start(repairTask, "look for damage", nil)
	return err
}

func noRepository() error {
	return api.Errorf(api.Conflict, "no repository is set; name one as config.server_url of /1.0/system/provider")
}

// pause changes the configuration, so that it lasts.
func pause(ctx context.Context, when *managed[api.SystemUpdate, api.SystemUpdateConfig], paused bool) error {
	c, err := when.Config()
	if err != nil || c.Paused == paused {
		return err
	}
	c.Paused = paused
	return when.Try(ctx, c, 0)
}

// warnings lists which version did not work, and whether nothing is done about it.
func (u *updates) warnings() []string {
	var out []string
	if s := u.agent.Status(); s.Problem != "" {
		out = append(out, s.Problem+"; `incusos os update show` has what its starts wrote")
	}
	if u.config.get().Paused {
		out = append(out, "updates are paused")
	}
	return out
}

// doctor adds to what may keep the next start from unlocking which versions did not
// work.
func (u *updates) doctor(of func(context.Context) (api.SecureBootDoctor, error)) func(context.Context) (api.SecureBootDoctor, error) {
	return func(ctx context.Context) (api.SecureBootDoctor, error) {
		d, err := of(ctx)
		if err != nil {
			return d, err
		}
		state, err := u.state(ctx)
		for _, f := range state.Failed {
			if f.Reason == update.Asked {
				continue
			}
			d.Findings = append(d.Findings, api.DoctorFinding{
				What: "version " + f.Version + " did not work: " + f.Reason,
				Do:   "See what its starts wrote with `incusos os update show`. It is tried again after `incusos os update forgive " + f.Version + "`.",
			})
		}
		return d, err
	}
}

// state returns how updates fare.
func (u *updates) state(ctx context.Context) (api.SystemUpdateState, error) {
	s := u.agent.Status()
	state := api.SystemUpdateState{
		LastCheck: s.LastCheck, Status: s.Text, NeedsReboot: s.NeedsReboot, Cluster: u.member.State(ctx),
		Progress: api.UpdateProgress{Done: s.Done, Total: s.Total},
	}
	r, err := u.agent.Records.Load()
	if err != nil {
		return state, err
	}
	state.Phase, state.Version = string(r.Phase), r.Version
	for _, version := range slices.Backward(slices.Sorted(maps.Keys(r.Failed))) {
		state.Failed = append(state.Failed, api.UpdateFailure{Version: version, Reason: r.Failed[version].Reason, Log: r.Failed[version].Log})
	}
	return state, nil
}

// resources returns the two documents as resources, which are areas too.
func (u *updates) resources(gate *change.Gate) (*managed[api.SystemUpdate, api.SystemUpdateConfig], *managed[api.SystemProvider, api.SystemProviderConfig]) {
	when := manage("system/update", u.config, onlySaved[api.SystemUpdateConfig]{"update", u.config.get}, gate,
		func(ctx context.Context, c api.SystemUpdateConfig) (api.SystemUpdate, error) {
			state, err := u.state(ctx)
			return api.SystemUpdate{Config: c, State: state}, err
		})
	where := manage("system/provider", u.provider, onlySaved[api.SystemProviderConfig]{"provider", u.provider.get}, gate,
		func(_ context.Context, c api.SystemProviderConfig) (api.SystemProvider, error) {
			if c.Name == "" {
				c.Name = "images"
			}
			return api.SystemProvider{Config: c}, nil
		})
	return when, where
}

// onlySaved is the area of a document that others look at when they need it.
type onlySaved[C any] struct {
	name  string
	saved func() C
}

// Name implements Area.
func (o onlySaved[C]) Name() string { return o.name }

// Plan implements change.Target.
func (o onlySaved[C]) Plan(_ context.Context, c C) (p api.Plan, err error) {
	if !reflect.DeepEqual(c, o.saved()) {
		p.Do("save", "the configuration of "+o.name)
	}
	return p, nil
}

// Apply implements change.Target.
func (onlySaved[C]) Apply(context.Context, C) error { return nil }
