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
	"github.com/incusos/incusos/internal/sys"
)

const (
	storeDir  = "/var/lib/incus-os-extensions"
	activeDir = "/var/lib/extensions"
	suffix    = ".raw"

	// stamp says which images are merged; systemd-sysext itself knows names
	// only. It lies in /run since a boot merges what is active by then.
	stamp = "/run/incus-os/apps.merged"
)

// policy admits images whose root hash is signed by a key the kernel trusts, as
// the drop-in of systemd-sysext.service in image/ does at boot. Without it
// systemd-sysext would take unsigned ones.
const policy = "--image-policy=root=signed+absent:usr=signed+absent"

// A Plan is what there is to do with images. The zero Plan is nothing.
type Plan struct {
	Copy       []Image           // from the source into the store
	Activate   map[string]string // application to stored image
	Deactivate []string          // applications that are not wanted any more
	Refresh    bool              // merge what is active
	Populate   bool              // users and directories are missing

	want   map[string]string // application to stored image, all of them
	merged map[string]string // likewise, before anything is done
}

// Empty reports whether everything wanted is merged.
func (p Plan) Empty() bool {
	return len(p.Copy) == 0 && len(p.Activate) == 0 && len(p.Deactivate) == 0 && !p.Refresh && !p.Populate
}

// names returns the applications that are wanted.
func (p Plan) names() []string { return slices.Sorted(maps.Keys(p.want)) }

// String lists the steps, one a line.
func (p Plan) String() string {
	var b strings.Builder
	for _, i := range p.Copy {
		fmt.Fprintf(&b, "install %s %s\n", i.Name, i.Version)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Activate)) {
		fmt.Fprintf(&b, "activate %s %s\n", name, versionOf(p.Activate[name]))
	}
	for _, name := range p.Deactivate {
		fmt.Fprintf(&b, "deactivate %s\n", name)
	}
	if p.Refresh {
		b.WriteString("merge the active images\n")
	}
	if p.Populate {
		b.WriteString("make the users and directories they bring\n")
	}
	return b.String()
}

// Plan compares what is wanted with what is merged. It changes nothing.
func (a *Apps) Plan(ctx context.Context) (Plan, error) { return a.plan(ctx, nil) }

// plan is Plan with images that take the place of those that are active.
func (a *Apps) plan(ctx context.Context, instead map[string]string) (Plan, error) {
	active, err := a.active()
	if err != nil {
		return Plan{}, err
	}
	merged, err := a.merged(ctx, active)
	if err != nil {
		return Plan{}, err
	}
	p := Plan{Activate: make(map[string]string), want: make(map[string]string), merged: merged}
	populated := a.saved.Get().Populated
	for _, name := range a.wanted(active) {
		image, source, err := a.choose(name, active)
		if err != nil {
			return Plan{}, err
		}
		if other, ok := instead[name]; ok {
			image, source = other, nil
		}
		if source != nil {
			p.Copy = append(p.Copy, *source)
		}
		if active[name] != image {
			p.Activate[name] = image
		}
		p.want[name] = image
		p.Refresh = p.Refresh || merged[name] != image
		p.Populate = p.Populate || populated[name] != image
	}
	p.drop(active)
	return p, nil
}

// drop adds to a plan what is active or merged and not wanted any more. What was
// merged without a stored image is not ours.
func (p *Plan) drop(active map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(active)) {
		if p.want[name] == "" {
			p.Deactivate = append(p.Deactivate, name)
			p.Refresh = true
		}
	}
	for name, image := range p.merged {
		p.Refresh = p.Refresh || image != "" && p.want[name] == ""
	}
}

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

// choose returns the image an application should run: the active one, else one
// of the running system's version, else the newest, else that of the source,
// which then has to be copied.
func (a *Apps) choose(name string, active map[string]string) (image string, source *Image, err error) {
	if !api.ApplicationName(name) {
		return "", nil, fmt.Errorf("%q is no application name; want lower case letters, digits and dashes", name)
	}
	if image, ok := active[name]; ok {
		return image, nil, nil
	}
	versions, err := a.stored(name)
	if err != nil {
		return "", nil, err
	}
	if running := a.osVersion(); slices.Contains(versions, running) {
		return imagePath(name, running), nil, nil
	}
	if len(versions) > 0 {
		return imagePath(name, versions[len(versions)-1]), nil, nil
	}
	if i, ok := a.supplied(name); ok {
		return imagePath(name, i.Version), &i, nil
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
	versions, err := a.host.Files.ReadDir(storeDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing the stored applications: %w", err)
	}
	for _, v := range versions {
		entries, err := a.host.Files.ReadDir(path.Join(storeDir, v.Name()))
		if err != nil {
			return nil, fmt.Errorf("listing the stored applications: %w", err)
		}
		for _, e := range entries {
			if name, ok := strings.CutSuffix(e.Name(), suffix); ok && api.ApplicationName(name) {
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
	n := slices.IndexFunc(all, func(i Image) bool { return i.Name == name && plainVersion(i.Version) })
	if n < 0 {
		return Image{}, false
	}
	return all[n], true
}

func imagePath(name, version string) string { return path.Join(storeDir, version, name+suffix) }

// plainVersion keeps versions from leading out of the store.
func plainVersion(v string) bool {
	return v != "" && strings.Trim(v, "0123456789.") == "" && strings.Trim(v, ".") != ""
}

// active returns the applications whose link leads to a stored image.
func (a *Apps) active() (map[string]string, error) {
	active := make(map[string]string)
	entries, err := a.host.Files.ReadDir(activeDir)
	if errors.Is(err, fs.ErrNotExist) {
		return active, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the active applications: %w", err)
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		link, err := a.host.Files.Readlink(path.Join(activeDir, e.Name()))
		image := path.Join(activeDir, link)
		if ok && err == nil && image == imagePath(name, versionOf(image)) && a.host.Files.Exists(image) {
			active[name] = image
		}
	}
	return active, nil
}

// stored returns the versions of an application in the store, oldest first.
func (a *Apps) stored(name string) ([]string, error) {
	versions := []string{}
	entries, err := a.host.Files.ReadDir(storeDir)
	if errors.Is(err, fs.ErrNotExist) {
		return versions, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the stored applications: %w", err)
	}
	for _, e := range entries {
		if a.host.Files.Exists(imagePath(name, e.Name())) {
			versions = append(versions, e.Name())
		}
	}
	return versions, nil
}

// osVersion returns the version of the running system, "" if it does not say.
func (a *Apps) osVersion() string {
	b, err := a.host.Files.ReadFile("/usr/lib/os-release")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "IMAGE_VERSION="); ok {
			return strings.Trim(v, `"'`)
		}
	}
	return ""
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

// applyImages carries p out. The stamp is written before a link changes and
// after everything that follows from it is done, so that a cut in between is
// seen as images that are not merged yet.
func (a *Apps) applyImages(ctx context.Context, p Plan) error {
	if p.Empty() {
		return nil
	}
	if err := a.recordMerged(p.merged); err != nil {
		return err
	}
	for _, image := range p.Copy {
		if err := a.install(ctx, image, a.options.Progress); err != nil {
			return err
		}
	}
	for _, name := range p.Deactivate {
		if err := a.host.Files.Remove(path.Join(activeDir, name+suffix)); err != nil {
			return fmt.Errorf("deactivating application %q: %w", name, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Activate)) {
		if err := a.activate(name, p.Activate[name]); err != nil {
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
	return a.recordMerged(p.want)
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
	name := imagePath(image.Name, image.Version)
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
	return a.host.Files.SyncDir(storeDir)
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

func (a *Apps) activate(name, image string) error {
	if err := a.host.Files.MkdirAll(activeDir, 0o755); err != nil {
		return fmt.Errorf("activating application %q: %w", name, err)
	}
	// Relative, since the initrd follows it from below /sysroot.
	link := path.Join("..", strings.TrimPrefix(image, path.Dir(activeDir)))
	if err := a.host.Files.Symlink(link, path.Join(activeDir, name+suffix)); err != nil {
		return fmt.Errorf("activating application %q: %w", name, err)
	}
	return nil
}

// refresh merges what is active. systemd-sysext may leave out images it does
// not take and still succeed, so that is looked at.
func (a *Apps) refresh(ctx context.Context, want map[string]string) error {
	if _, err := a.host.Exec.Run(ctx, sys.Command("systemd-sysext", "refresh", policy)); err != nil {
		return fmt.Errorf("merging applications: %w", err)
	}
	names, err := a.mergedNames(ctx)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if !slices.Contains(names, name) {
			return &notAcceptedError{name, versionOf(want[name])}
		}
	}
	return nil
}

// A notAcceptedError reports an image that systemd-sysext leaves out.
type notAcceptedError struct{ name, version string }

func (e *notAcceptedError) Error() string {
	return fmt.Sprintf("application %q %s was not accepted; it is not signed for this machine or made for another release, see the log of systemd-sysext", e.name, e.version)
}

// populate makes what the images bring known: units, users, directories.
func (a *Apps) populate(ctx context.Context, want map[string]string) error {
	if err := a.host.Units.Reload(ctx); err != nil {
		return err
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
