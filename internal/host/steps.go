package host

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

// A step is one thing to do: in words, and as what does it.
type step struct {
	api.PlanStep
	do func(context.Context) error
}

func newStep(action, object string, do func(context.Context) error) step {
	return step{api.PlanStep{Action: action, Object: object}, do}
}

// withRisk says what the operator may lose meanwhile.
func (s step) withRisk(risk string) step {
	s.Risk = risk
	return s
}

func planOf(steps []step) (p api.Plan) {
	for _, s := range steps {
		p.Steps = append(p.Steps, s.PlanStep)
	}
	return p
}

// take does the steps in their order, up to the first that fails.
func take(ctx context.Context, steps []step) error {
	for _, s := range steps {
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("cannot %s %s: %w", s.Action, s.Object, err)
		}
	}
	return nil
}

// inOrder does one thing after another, up to the first that fails.
func inOrder(things ...func() error) error {
	for _, do := range things {
		if err := do(); err != nil {
			return err
		}
	}
	return nil
}

// fileStep returns the steps that give a file its content, or remove it if that
// is empty. Services that read it need not run as root, so that its directory is
// opened to them whatever the umask is.
func fileStep(files sys.Dir, name, content string) ([]step, error) {
	now, err := files.ReadFile(name)
	switch missing := errors.Is(err, fs.ErrNotExist); {
	case err != nil && !missing:
		return nil, fmt.Errorf("reading what is in place: %w", err)
	case missing && content == "", !missing && content != "" && content == string(now):
		return nil, nil
	case content == "":
		return []step{newStep("remove", name, func(context.Context) error { return files.Remove(name) })}, nil
	}
	return []step{newStep("write", name, func(context.Context) error {
		if err := openDir(files, path.Dir(name)); err != nil {
			return err
		}
		return files.WriteFile(name, []byte(content), 0o644)
	})}, nil
}

func openDir(files sys.Dir, dir string) error {
	if err := files.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := files.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o755), f.Close())
}

// originalsFile holds what values of the kernel were before they were first
// changed in this boot, by their files. It is gone after a boot, as they are.
const originalsFile = "/run/incus-os/kernel-originals.json"

// originals reads what values were before they were first changed.
func originals(files sys.Dir) (map[string]string, error) {
	b, err := files.ReadFile(originalsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return map[string]string{}, nil
	}
	m := make(map[string]string)
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		return nil, fmt.Errorf("reading what the kernel was set to, from %s: %w", originalsFile, err)
	}
	return m, nil
}

// remember notes what a file holds before it is changed for the first time.
func remember(files sys.Dir, name, value string) error {
	m, err := originals(files)
	if err != nil {
		return err
	}
	if _, known := m[name]; known {
		return nil
	}
	m[name] = value
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return files.WriteFile(originalsFile, b, 0o600)
}

// forget drops what remember noted.
func forget(files sys.Dir, name string) error {
	m, err := originals(files)
	if err != nil {
		return err
	}
	delete(m, name)
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return files.WriteFile(originalsFile, b, 0o600)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// A setting is a value of the kernel that lives in a file of /proc or /sys.
type setting struct {
	name  string // for people, such as "net.core.rmem_max"
	file  string
	value string // "": what it was before it was first changed
	risk  string

	// put writes the value where more than one write is needed; nil: one is.
	put func(ctx context.Context, value string) error
}

// change returns the steps that bring s about. was is what originals returned.
func (s setting) change(files sys.Dir, was map[string]string) ([]step, error) {
	b, err := files.ReadFile(s.file)
	if errors.Is(err, fs.ErrNotExist) && s.value == "" {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", s.name, err)
	}
	now, want := fields(b), s.value
	if want == "" {
		before, changed := was[s.file]
		if !changed {
			return nil, nil
		}
		want = before
	}
	if now == want {
		return nil, nil
	}
	put := s.put
	if put == nil {
		put = func(_ context.Context, value string) error { return files.PutFile(s.file, []byte(value+"\n")) }
	}
	return []step{newStep("set", s.name+" to "+want, func(ctx context.Context) error {
		if err := remember(files, s.file, now); err != nil {
			return err
		}
		return s.refused(want, put(ctx, want))
	}).withRisk(s.risk)}, nil
}

// refused says of a value that the kernel does not take that it is the value's
// fault, which only the kernel knew.
func (s setting) refused(value string, err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ERANGE) {
		return api.Errorf(api.Invalid, "the kernel does not take %q for %s", value, s.name)
	}
	return err
}

// fields returns a value without the white space that the kernel writes and
// takes in any form.
func fields(b []byte) string { return strings.Join(strings.Fields(string(bytes.TrimSpace(b))), " ") }
