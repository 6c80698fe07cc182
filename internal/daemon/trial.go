package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/incusos/incusos/internal/update"
)

const (
	// lookEvery is how often the areas are looked at while a version is tried, and
	// rememberEvery is how often they are after that.
	lookEvery, rememberEvery = 5 * time.Second, time.Minute
	// trialLasts is how long after the daemon's start a version has to be found
	// good, unless its command line says how many seconds: "incusos.trial=900".
	trialLasts  = 15 * time.Minute
	trialOption = "incusos.trial="
	// lasting is how long an area is degraded before a new version is not blamed
	// for it: longer than a retry takes to mend what a start had no time for.
	lasting = 5 * time.Minute

	// foundGood ends incus-os-trial.service, which starts the machine again when
	// this program cannot.
	foundGood = "/run/incus-os/found-good"
	// beforeFile has what was degraded before an update.
	beforeFile = "/var/lib/incus-os/degraded-before.json"
	maxBefore  = 1 << 20 // bytes
)

// update settles the last update, and looks for others until ctx ends.
func (d *Daemon) update(ctx context.Context) {
	if d.Updates == nil {
		return
	}
	d.Updates.Healthy = d.healthy
	if err := d.Updates.Settle(ctx); err != nil && !errors.Is(err, fs.ErrNotExist) && ctx.Err() == nil {
		slog.ErrorContext(ctx, "Cannot find out what became of the last update", "err", err)
	} else if ctx.Err() == nil && !d.onTrial(ctx) {
		d.endTrial(ctx)
		var also sync.WaitGroup
		defer also.Wait()
		also.Go(func() { d.remember(ctx) })
	}
	select {
	case <-d.up:
		d.Updates.Run(ctx)
	case <-ctx.Done():
	}
}

// onTrial reports whether the version that runs was not found good.
func (d *Daemon) onTrial(ctx context.Context) bool {
	r, err := d.Updates.Records.Load()
	if err != nil {
		slog.ErrorContext(ctx, "Cannot tell whether this version is good", "err", err)
		return true
	}
	return r.Phase == update.Trying
}

func (d *Daemon) endTrial(ctx context.Context) {
	if err := d.Host.Files.WriteFile(foundGood, nil, 0o644); err != nil {
		slog.ErrorContext(ctx, "Cannot say that this version is good", "err", err)
	}
}

// healthy waits until no area is degraded that was not before the update, which is
// how a new version is found good, and says which are if that does not come to pass.
func (d *Daemon) healthy(ctx context.Context) error {
	before, err := d.before()
	if err != nil {
		slog.WarnContext(ctx, "Cannot tell what was degraded before this version; nothing may be", "err", err)
	}
	ctx, cancel := context.WithDeadline(ctx, d.began.Add(d.trialTime()))
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		bad := d.degraded(func(f fare) bool { return before[f.Area] != complaint(f.Why) })
		if len(bad) == 0 && d.ready.Load() {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return d.notInTime(bad)
		}
	}
}

// notInTime is what keeps the version that runs from being good.
func (d *Daemon) notInTime(bad []fare) error {
	var all []string
	for _, f := range bad {
		all = append(all, f.Area+": "+f.Why)
	}
	if doing, _ := d.doing.Load().(string); doing != "" {
		all = append(all, doing+": still being brought up")
	}
	return errors.New(strings.Join(append(all, "it did not come up in time"), "; "))
}

// degraded returns the areas that are, as far as they count.
func (d *Daemon) degraded(counts func(fare) bool) (list []fare) {
	for _, f := range d.loop.fares() {
		if f.Since != nil && counts(f) {
			list = append(list, f)
		}
	}
	return list
}

// trialTime returns how long a version has to be found good.
func (d *Daemon) trialTime() time.Duration {
	line, err := d.Host.Files.ReadFile("/proc/cmdline")
	if err != nil {
		return trialLasts
	}
	for word := range strings.FieldsSeq(string(line)) {
		if v, ok := strings.CutPrefix(word, trialOption); ok {
			if n, err := strconv.ParseUint(v, 10, 16); err == nil && n > 0 {
				return time.Duration(n) * time.Second //nolint:gosec // 16 bits
			}
		}
	}
	return trialLasts
}

// figure is what of a complaint may be another one each time.
var figure = regexp.MustCompile(`[0-9]+`)

// complaint is what an area complains of, whatever the figures in it are: the same
// trouble before and after an update is not the fault of the update.
func complaint(why string) string { return figure.ReplaceAllString(why, "0") }

// before returns what areas complained of before the update, by their names.
func (d *Daemon) before() (map[string]string, error) {
	info, err := d.Host.Files.Stat(beforeFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if info.Size() > maxBefore {
		return nil, fmt.Errorf("%s has %d bytes; want at most %d", beforeFile, info.Size(), maxBefore)
	}
	b, err := d.Host.Files.ReadFile(beforeFile)
	if err != nil {
		return nil, err
	}
	var all map[string]string
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, fmt.Errorf("%s: %w", beforeFile, err)
	}
	return all, nil
}

// remember keeps on the disk what areas complain of, until ctx ends, for the next
// version to compare with. Only a version that was found good may say it.
func (d *Daemon) remember(ctx context.Context) {
	var known []byte
	for {
		all := make(map[string]string)
		for _, f := range d.degraded(func(f fare) bool { return time.Since(*f.Since) >= lasting }) {
			all[f.Area] = complaint(f.Why)
		}
		if err := d.saveBefore(all, &known); err != nil {
			slog.WarnContext(ctx, "Cannot write down what is degraded", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(rememberEvery):
		}
	}
}

// saveBefore writes what areas complain of, unless it is what is known.
func (d *Daemon) saveBefore(all map[string]string, known *[]byte) error {
	b, err := json.Marshal(all)
	if err != nil {
		return err
	}
	b = append(b, '\n')
	if *known == nil {
		*known, _ = d.Host.Files.ReadFile(beforeFile) // not there, or written anew
	}
	if bytes.Equal(b, *known) {
		return nil
	}
	if err := d.Host.Files.WriteFile(beforeFile, b, 0o600); err != nil {
		return err
	}
	*known = b
	return nil
}
