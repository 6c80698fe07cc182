package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"reflect"
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
	// beforeFile has how the machine was before an update.
	beforeFile = "/var/lib/incus-os/before-update.json"
	maxBefore  = 1 << 20 // bytes
)

// update settles the last update, and looks for others until ctx ends.
func (d *Daemon) update(ctx context.Context) {
	if d.Updates == nil {
		return
	}
	d.Updates.Healthy = d.healthy
	var also sync.WaitGroup
	defer also.Wait()
	settled := false
	if err := d.Updates.Settle(ctx); err != nil && !errors.Is(err, fs.ErrNotExist) && ctx.Err() == nil {
		slog.ErrorContext(ctx, "Cannot find out what became of the last update", "err", err)
	} else if ctx.Err() == nil && !d.onTrial(ctx) {
		settled = true
		d.endTrial(ctx)
		also.Go(func() { d.remember(ctx) })
	}
	select {
	case <-d.up:
		if settled && d.ComeBack != nil {
			also.Go(func() { d.ComeBack(ctx) })
		}
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

// A before is how the machine was before an update. Versions before and after this one
// read it too: fields are only ever added.
type before struct {
	Degraded  map[string]string `json:"degraded"`  // complaints by the names of areas
	Addressed bool              `json:"addressed"` // it had an address
}

// healthy waits until nothing is worse than it was before the update, which is how a
// new version is found good, and says what is if that does not come to pass.
func (d *Daemon) healthy(ctx context.Context) error {
	old, err := d.before()
	if err != nil {
		slog.WarnContext(ctx, "Cannot tell what was degraded before this version; nothing may be", "err", err)
	}
	ctx, cancel := context.WithDeadline(ctx, d.began.Add(d.trialTime()))
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		worse := d.worse(ctx, old)
		if worse == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.New(strings.Join(append(worse, "it did not come up in time"), "; "))
		}
	}
}

// worse returns what is not as well as it was before.
func (d *Daemon) worse(ctx context.Context, old before) (list []string) {
	for _, f := range d.degraded(func(f fare) bool { return old.Degraded[f.Area] != complaint(f.Why) }) {
		list = append(list, f.Area+": "+f.Why)
	}
	if old.Addressed && len(d.addresses(ctx)) == 0 {
		list = append(list, "network: there is no address, as there was before this version")
	}
	if doing, _ := d.doing.Load().(string); !d.ready.Load() {
		list = append(list, doing+": still being brought up")
	}
	return list
}

// degraded returns the areas that are, as far as they count. One that only waits for
// other machines is not.
func (d *Daemon) degraded(counts func(fare) bool) (list []fare) {
	for _, f := range d.loop.fares() {
		if f.Since != nil && !f.blameless && counts(f) {
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

// before returns how the machine was before the update.
func (d *Daemon) before() (old before, err error) {
	info, err := d.Host.Files.Stat(beforeFile)
	if errors.Is(err, fs.ErrNotExist) {
		return before{}, nil
	}
	if err != nil {
		return before{}, err
	}
	if info.Size() > maxBefore {
		return before{}, fmt.Errorf("%s has %d bytes; want at most %d", beforeFile, info.Size(), maxBefore)
	}
	b, err := d.Host.Files.ReadFile(beforeFile)
	if err != nil {
		return before{}, err
	}
	if err := json.Unmarshal(b, &old); err != nil {
		return before{}, fmt.Errorf("%s: %w", beforeFile, err)
	}
	return old, nil
}

// remember keeps on the disk how the machine is, until ctx ends, for the next version
// to compare with. Only a version that was found good may say it.
func (d *Daemon) remember(ctx context.Context) {
	saved, err := d.before()
	addressed := saved.Addressed
	seen := time.Now() // when there was an address, if there was one at the end of the start before
	for {
		if len(d.addresses(ctx)) > 0 {
			seen, addressed = time.Now(), true
		}
		now := before{Degraded: make(map[string]string), Addressed: addressed && time.Since(seen) < lasting}
		for _, f := range d.degraded(func(f fare) bool { return time.Since(*f.Since) >= lasting }) {
			now.Degraded[f.Area] = complaint(f.Why)
		}
		if err != nil || !reflect.DeepEqual(now, saved) {
			saved = now
			if err = d.saveBefore(now); err != nil {
				slog.WarnContext(ctx, "Cannot write down how the machine is", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(rememberEvery):
		}
	}
}

func (d *Daemon) saveBefore(now before) error {
	b, err := json.Marshal(now)
	if err != nil {
		return err
	}
	return d.Host.Files.WriteFile(beforeFile, append(b, '\n'), 0o600)
}
