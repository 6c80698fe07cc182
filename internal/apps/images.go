package apps

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sets"
	"github.com/incusos/incusos/internal/sys"
)

// stamp says which images are merged; systemd-sysext itself knows names only. It
// lies in /run since a boot merges what is active by then.
const stamp = "/run/incus-os/apps.merged"

// policy admits images whose root hash is signed by a key the kernel trusts, as
// the drop-in of systemd-sysext.service in image/ does at boot. Without it
// systemd-sysext would take unsigned ones.
const policy = "--image-policy=root=signed+absent:usr=signed+absent"

// wanted returns the applications that the machine should have. Documents of
// earlier releases do not say: then it is what it has and what the seed asks for.
func (a *Apps) wanted(active map[string]string) []string {
	if list := a.saved.Get().Installed; len(list) > 0 {
		return list
	}
	all := slices.Concat(a.options.Wanted, slices.Collect(maps.Keys(active)))
	for _, name := range a.options.Also {
		if _, _, err := a.choose(name, active); err == nil {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// choose returns the image an application should run: that in the set of the running
// system, else the active one, else one of the running system's version, else the
// newest, else that of the source, which then has to be copied.
func (a *Apps) choose(name string, active map[string]string) (image string, source *Image, err error) {
	if !api.ApplicationName(name) {
		return "", nil, fmt.Errorf("%q is no application name; want lower case letters, digits and dashes", name)
	}
	running := sets.Running(a.host.Files)
	system, err := a.options.Sets.Of(running)
	if err != nil {
		return "", nil, err
	}
	versions, err := a.stored(name)
	if err != nil {
		return "", nil, err
	}
	if v := system.Now[name]; slices.Contains(versions, v) {
		return sets.Path(name, v), nil, nil
	}
	if image, ok := active[name]; ok {
		return image, nil, nil
	}
	if slices.Contains(versions, running) {
		return sets.Path(name, running), nil, nil
	}
	if len(versions) > 0 {
		return sets.Path(name, versions[len(versions)-1]), nil, nil
	}
	if i, ok := a.supplied(name); ok {
		return sets.Path(name, i.Version), &i, nil
	}
	return "", nil, fmt.Errorf("there is no image of application %q, neither stored nor in the seed; make the install medium again with it", name)
}

// source returns where images come from that are not stored; nil is nowhere.
func (a *Apps) source() Source {
	if a.options.Source != nil || a.options.Seed == nil {
		return a.options.Source
	}
	source, _, err := a.options.Seed()
	if err != nil {
		slog.Warn("Cannot read the seed for the images in it", "err", err)
		return nil
	}
	return source
}

// available returns the applications that there is an image of.
func (a *Apps) available() ([]string, error) {
	images := make(map[string]bool)
	versions, err := a.host.Files.ReadDir(sets.Store)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing the stored applications: %w", err)
	}
	for _, v := range versions {
		entries, err := a.host.Files.ReadDir(path.Join(sets.Store, v.Name()))
		if err != nil {
			return nil, fmt.Errorf("listing the stored applications: %w", err)
		}
		for _, e := range entries {
			if name, ok := strings.CutSuffix(e.Name(), sets.Suffix); ok && api.ApplicationName(name) {
				images[name] = true
			}
		}
	}
	if source := a.source(); source != nil {
		for _, i := range source.Applications() {
			images[i.Name] = true
		}
	}
	return slices.Sorted(maps.Keys(images)), nil
}

// supplied returns the image of an application that the source has.
func (a *Apps) supplied(name string) (Image, bool) {
	source := a.source()
	if source == nil {
		return Image{}, false
	}
	all := source.Applications()
	n := slices.IndexFunc(all, func(i Image) bool { return i.Name == name && sets.PlainVersion(i.Version) })
	if n < 0 {
		return Image{}, false
	}
	return all[n], true
}

// active returns the applications whose link leads to a stored image.
func (a *Apps) active() (map[string]string, error) {
	active, err := sets.Active(a.host.Files)
	for name, version := range active {
		active[name] = sets.Path(name, version)
	}
	return active, err
}

// stored returns the versions of an application in the store, oldest first.
func (a *Apps) stored(name string) ([]string, error) {
	versions := []string{}
	entries, err := a.host.Files.ReadDir(sets.Store)
	if errors.Is(err, fs.ErrNotExist) {
		return versions, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the stored applications: %w", err)
	}
	for _, e := range entries {
		if a.host.Files.Exists(sets.Path(name, e.Name())) {
			versions = append(versions, e.Name())
		}
	}
	return versions, nil
}

// merged returns the images in force. What this boot merged on its own is what
// is active, as long as nothing was activated since; stamp tells.
func (a *Apps) merged(ctx context.Context, active map[string]string) (map[string]string, error) {
	names, err := a.mergedNames(ctx)
	if err != nil {
		return nil, err
	}
	known := active
	b, err := a.host.Files.ReadFile(stamp)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("reading what is merged: %w", err)
	default:
		known = nil
		if err := json.Unmarshal(b, &known); err != nil {
			return nil, fmt.Errorf("reading %s: %w", stamp, err)
		}
	}
	merged := make(map[string]string)
	for _, name := range names {
		merged[name] = known[name]
	}
	return merged, nil
}

// mergedNames asks systemd-sysext. For each hierarchy it prints a list of
// names, or the word "none".
func (a *Apps) mergedNames(ctx context.Context) ([]string, error) {
	out, err := a.host.Exec.Run(ctx, sys.Command("systemd-sysext", "status", "--json=short"))
	if err != nil {
		return nil, fmt.Errorf("asking what is merged: %w", err)
	}
	var hierarchies []struct {
		Extensions json.RawMessage `json:"extensions"`
	}
	if len(out) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(out, &hierarchies); err != nil {
		return nil, fmt.Errorf("reading what systemd-sysext status printed: %w", err)
	}
	var names []string
	for _, h := range hierarchies {
		var list []string
		if err := json.Unmarshal(h.Extensions, &list); err == nil {
			names = append(names, list...)
		}
	}
	return names, nil
}

// applyImages carries p out.
func (a *Apps) applyImages(ctx context.Context, p Plan) error {
	if !p.done() {
		if err := a.merge(ctx, p); err != nil {
			return err
		}
	}
	return a.options.Sets.Prune()
}

// merge brings the images in force to p. The stamp is written before a link changes and
// after everything that follows from it is done, so that after a cut in between
// they are merged again, whichever they are to be then. What the running system runs with is
// written down once it does, so that after a cut it starts with what it had.
func (a *Apps) merge(ctx context.Context, p Plan) error {
	if err := a.recordMerged(p.between()); err != nil {
		return err
	}
	for _, image := range p.Copy {
		if err := a.install(ctx, image, a.options.Progress); err != nil {
			return err
		}
	}
	for _, name := range p.Deactivate {
		if err := sets.Deactivate(a.host.Files, name); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Activate)) {
		if err := sets.Activate(a.host.Files, name, sets.VersionOf(p.Activate[name])); err != nil {
			return err
		}
	}
	if p.Refresh {
		if err := a.refresh(ctx, p.want); err != nil {
			return err
		}
	}
	if err := a.populate(ctx, p.want); err != nil {
		return err
	}
	if p.Record {
		if err := a.options.Sets.Runs(sets.Running(a.host.Files), p.set()); err != nil {
			return err
		}
	}
	if err := a.stopReplaced(ctx, p); err != nil {
		return err
	}
	return a.recordMerged(p.want)
}

// stopReplaced stops Incus if it runs from an image that is merged no more. Its
// unit ends one process only (KillMode=process): instances go on, and Incus finds
// them again. It is before the stamp, so that a cut does not leave it running.
func (a *Apps) stopReplaced(ctx context.Context, p Plan) error {
	if old, merged := p.merged[incusName]; !merged || old == p.want[incusName] {
		return nil
	}
	return a.host.Units.Stop(ctx, incusUnit)
}

// unsure is what the stamp says of an application whose image is being exchanged.
const unsure = "?"

// between returns what is merged while p is carried out.
func (p Plan) between() map[string]string {
	all := maps.Clone(p.merged)
	for name := range p.merged {
		if p.want[name] != p.merged[name] {
			all[name] = unsure
		}
	}
	for name, image := range p.want {
		if p.merged[name] != image {
			all[name] = unsure
		}
	}
	return all
}

func (a *Apps) recordMerged(images map[string]string) error {
	b, err := json.Marshal(images)
	if err == nil {
		err = a.host.Files.WriteFile(stamp, b, 0o644)
	}
	if err != nil {
		return fmt.Errorf("recording what is merged: %w", err)
	}
	return nil
}

// install copies an image from the source into the store.
func (a *Apps) install(ctx context.Context, image Image, progress func(name string, done, total uint64)) (err error) {
	source := a.source()
	if source == nil {
		return fmt.Errorf("storing application %q: the seed with its image is gone", image.Name)
	}
	r, err := source.OpenApplication(image.Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	name := sets.Path(image.Name, image.Version)
	w, err := a.host.Files.Create(name, 0o644)
	if err != nil {
		return fmt.Errorf("storing application %q: %w", image.Name, err)
	}
	meter := &meter{ctx: ctx, r: r, report: func(done uint64) { progress(image.Name, done, image.Size) }}
	n, err := io.Copy(w, meter)
	if err == nil && uint64(n) != image.Size { //nolint:gosec // a count
		err = fmt.Errorf("the seed ends after %d of %d bytes; make the install medium again", n, image.Size)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("storing application %q: %w", image.Name, err), w.Abort())
	}
	if err := w.Commit(); err != nil {
		return fmt.Errorf("storing application %q: %w", image.Name, err)
	}
	return a.host.Files.SyncDir(sets.Store)
}

// A meter reports how much was read through it, and ends with its context.
type meter struct {
	ctx    context.Context //nolint:containedctx // lives as long as one copy
	r      io.Reader
	done   uint64
	report func(done uint64)
}

func (m *meter) Read(p []byte) (int, error) {
	if err := m.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := m.r.Read(p)
	m.done += uint64(n) //nolint:gosec // a count
	m.report(m.done)
	return n, err
}

// refresh merges what is active. systemd-sysext may leave out images it does
// not take and still succeed, so that is looked at.
func (a *Apps) refresh(ctx context.Context, want map[string]string) error {
	if _, err := a.host.Exec.Run(ctx, sys.Command("systemd-sysext", "refresh", policy)); err != nil {
		return fmt.Errorf("merging applications: the image of one of %s was changed, is not signed for this machine, or is made for another release; see the log of systemd-sysext: %w",
			strings.Join(slices.Sorted(maps.Keys(want)), ", "), err)
	}
	names, err := a.mergedNames(ctx)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if !slices.Contains(names, name) {
			return &notAcceptedError{name, sets.VersionOf(want[name])}
		}
	}
	return nil
}

// A notAcceptedError reports an image that systemd-sysext leaves out.
type notAcceptedError struct{ name, version string }

func (e *notAcceptedError) Error() string {
	return fmt.Sprintf("application %q %s was not accepted; it is not signed for this machine or made for another release, see the log of systemd-sysext", e.name, e.version)
}

// populate makes what the images bring known: units, rules of udev, users, directories.
func (a *Apps) populate(ctx context.Context, want map[string]string) error {
	if err := a.host.Units.Reload(ctx); err != nil {
		return err
	}
	// udev would look at the time of a directory, which is the same in each image.
	if _, err := a.host.Exec.Run(ctx, sys.Command("udevadm", "control", "--reload")); err != nil {
		return fmt.Errorf("having udev read the rules of applications: %w", err)
	}
	if _, err := a.host.Exec.Run(ctx, sys.Command("systemd-sysusers")); err != nil {
		return fmt.Errorf("making the users of applications: %w", err)
	}
	_, err := a.host.Exec.Run(ctx, sys.Command("systemd-tmpfiles", "--create"))
	if exit, ok := errors.AsType[*sys.ExecError](err); ok && (exit.Code == 65 || exit.Code == 73) {
		slog.Warn("Some lines of tmpfiles.d were not carried out", "err", err) // systemd-tmpfiles(8), exit status
		err = nil
	}
	if err != nil {
		return fmt.Errorf("making the directories of applications: %w", err)
	}
	return a.update(func(s *Saved) {
		s.Populated, s.Installed = want, slices.Sorted(maps.Keys(want))
	})
}
