package systest

import (
	"context"
	"encoding/json"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/incusos/incusos/internal/sys"
)

// Sysext models systemd-sysext: what lies in /var/lib/extensions is merged into
// /usr when asked for, and stays as it was until asked again.
type Sysext struct {
	files sys.Dir
	mu    sync.Mutex
	base  map[string]string // extension to the target of its link
	bad   []string          // names or images that are not taken
}

// NewSysext adds systemd-sysext to the programs of rig.
func NewSysext(rig *Rig) *Sysext {
	s := &Sysext{files: rig.Host.Files}
	rig.Programs.Model("systemd-sysext", s.run)
	return s
}

// Refuse makes an extension, by its name or its image, one that is left out, as
// those are whose signature is not trusted.
func (s *Sysext) Refuse(nameOrImage string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bad = append(s.bad, nameOrImage)
}

// Boot merges what is there, as systemd-sysext.service does before the daemon
// starts.
func (s *Sysext) Boot() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refresh()
}

// Merged returns the images in force, by extension.
func (s *Sysext) Merged() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.base)
}

func (s *Sysext) run(_ context.Context, c sys.Cmd) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch c.Args[0] {
	case "refresh":
		return nil, s.refresh()
	case "status":
		return s.status()
	}
	return nil, &sys.ExecError{Name: "systemd-sysext", Code: 1, Stderr: "Unknown command verb " + c.Args[0]}
}

func (s *Sysext) refresh() error {
	const dir = "/var/lib/extensions"
	s.base = make(map[string]string)
	if !s.files.Exists(dir) {
		return nil
	}
	entries, err := s.files.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		target, err := s.files.Readlink(path.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		if !path.IsAbs(target) {
			target = path.Join(dir, target)
		}
		name, ok := strings.CutSuffix(e.Name(), ".raw")
		if ok && s.files.Exists(target) && !slices.Contains(s.bad, name) && !slices.Contains(s.bad, target) {
			s.base[name] = target
		}
	}
	return nil
}

// status prints one object for each hierarchy; "extensions" is a list, or the
// word "none".
func (s *Sysext) status() ([]byte, error) {
	usr := object{"hierarchy": "/usr", "extensions": "none", "since": nil}
	if len(s.base) > 0 {
		usr["extensions"], usr["since"] = slices.Sorted(maps.Keys(s.base)), 1767225600000000
	}
	return json.Marshal([]object{{"hierarchy": "/opt", "extensions": "none", "since": nil}, usr})
}
