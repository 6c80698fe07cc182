package daemon

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/incusos/incusos/internal/console"
)

// incusUnit is the service that answers where the console says one can connect.
const incusUnit = "incus.service"

// show tells the console how the machine is. Doing names what is being brought
// up; once everything was, that is no news.
func (d *Daemon) show(ctx context.Context, doing string) {
	if d.ready.Load() {
		doing = ""
	}
	d.doing.Store(doing)
	env, err := d.environment(ctx)
	if err != nil {
		slog.WarnContext(ctx, "Cannot tell what this machine is", "err", err)
	}
	s := console.Status{
		Name:      cmp.Or(env.OSName, "IncusOS"),
		Version:   cmp.Or(env.OSVersion, "of an unknown version"),
		Mode:      env.Mode,
		Hostname:  env.Hostname,
		Addresses: d.addresses(ctx),
		IncusUp:   d.incusUp(ctx),
		Starting:  doing,
		Alarms:    d.alarms(),
		Degraded:  d.loop.degraded(),
		Warnings:  d.warnings(),
		Elapsed:   time.Since(d.began),
	}
	d.Console.Show(s)
}

// alarms lists why the machine is not to be trusted like others.
func (d *Daemon) alarms() []string {
	if d.Alarms == nil {
		return nil
	}
	return d.Alarms()
}

// warnings lists what needs attention although it works.
func (d *Daemon) warnings() []string {
	out := slices.Clone(d.early.Warnings)
	if d.Warnings != nil {
		out = append(out, d.Warnings()...)
	}
	if d.figures != nil {
		out = append(out, d.figures.warnings()...)
	}
	return out
}

// degraded lists what does not work, as "area: why".
func (l *loop) degraded() []string {
	var out []string
	for _, s := range l.states {
		if s.err != nil {
			out = append(out, s.area.Name()+": "+s.err.Error())
		}
	}
	return out
}

// addresses returns those of the interfaces that the network area looks after,
// which leaves out what Incus makes for its instances.
func (d *Daemon) addresses(ctx context.Context) []string {
	if d.Machine.Network == nil {
		return nil
	}
	doc, err := d.Machine.Network.Get(ctx)
	if err != nil {
		return nil // the area says so itself
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(doc.State.Interfaces)) {
		for _, a := range doc.State.Interfaces[name].Addresses {
			address, _, _ := strings.Cut(a, "/")
			out = append(out, address)
		}
	}
	return out
}

func (d *Daemon) incusUp(ctx context.Context) bool {
	state, err := d.Host.Units.State(ctx, incusUnit)
	return err == nil && state == "active"
}
