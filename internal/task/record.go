package task

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/incusos/incusos/api"
)

const (
	dir    = "/var/lib/incus-os/tasks"
	suffix = ".json"

	// schema is the form of the files. Newer releases only add fields.
	schema = 1
)

// A record is the file of a task.
type record struct {
	Schema int `json:"schema"`
	api.Task
	Arg         json.RawMessage `json:"arg,omitempty"`          // while it may have to be run again
	CancelAsked bool            `json:"cancel_asked,omitempty"` // somebody asked, which outlives a restart
}

// number is the place of a task in the order of all.
func (r record) number() int {
	n, _ := strconv.Atoi(r.ID) // parse and admit made it one
	return n
}

// write writes the file of a task. The caller holds writing.
func (m *Manager) write(r record) error {
	b, err := json.Marshal(r)
	if err == nil {
		err = m.files.WriteFile(file(r.ID), append(b, '\n'), 0o600)
	}
	return err
}

// erase removes the file of a task, whether or not there is one.
func (m *Manager) erase(id string) error {
	if err := m.files.Remove(file(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func file(id string) string { return dir + "/" + id + suffix }

// load reads what there is. A file that cannot be read stays as it is, and its
// number is not used again.
func (m *Manager) load() error {
	entries, err := m.files.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listing the tasks: %w", err)
	}
	var all []error
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), suffix)
		n, err := strconv.Atoi(id)
		if !ok || err != nil || n < 1 || strconv.Itoa(n) != id {
			continue // what a cut write left, or something of somebody else
		}
		m.last = max(m.last, n)
		b, err := m.files.ReadFile(file(id))
		if err == nil {
			m.jobs[n], err = parse(id, b)
		}
		if err != nil {
			delete(m.jobs, n)
			all = append(all, fmt.Errorf("reading %s: %w; remove the file if that does not matter", file(id), err))
		}
	}
	return errors.Join(all...)
}

// parse returns the task in a file.
func parse(id string, b []byte) (*job, error) {
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, err
	}
	if r.ID != id {
		return nil, fmt.Errorf("it says to be task %q", r.ID)
	}
	switch r.Status {
	case api.TaskRunning, api.TaskDone, api.TaskFailed, api.TaskCancelled, api.TaskInterrupted:
	default:
		return nil, fmt.Errorf("its status is %q", r.Status)
	}
	return newJob(r, ""), nil
}

// settle decides about the tasks that ran when the machine stopped, in the order
// in which they were started. The caller holds writing.
func (m *Manager) settle() {
	m.mu.Lock()
	all := m.newest()
	m.mu.Unlock()
	for i := len(all) - 1; i >= 0; i-- {
		j := all[i]
		if j.record.Status != api.TaskRunning {
			close(j.ended)
			continue
		}
		k, known := m.kinds[j.record.Kind]
		if known && k.Resume && !j.record.CancelAsked {
			slog.Info("Resuming a task", "task", j.record.ID, "kind", k.Name, "phase", j.record.Phase)
			j.key, j.resumed, j.record.CanCancel = k.key(j.record.Arg), j.record.Phase, k.Cancel
			m.launch(j, k)
			continue
		}
		m.lay(j)
	}
}

// lay notes that a task was cut and is not resumed. If that cannot be written
// down, the next start does.
func (m *Manager) lay(j *job) {
	r := j.record
	now := time.Now().UTC().Truncate(time.Millisecond)
	r.Ended, r.CanCancel, r.Arg = &now, false, nil
	r.Status, r.Error = api.TaskInterrupted, "the machine stopped while it was at work; start it again if it is still wanted"
	if r.CancelAsked {
		r.Status, r.Error = api.TaskCancelled, ""
	}
	if err := m.write(r); err != nil {
		slog.Error("Cannot write down that a task was interrupted", "task", r.ID, "err", err)
	}
	m.mu.Lock()
	j.record = r
	m.mu.Unlock()
	close(j.ended)
}

// prune forgets the oldest of the tasks that have ended. The caller holds
// writing.
func (m *Manager) prune() {
	m.mu.Lock()
	var old []string
	ended := 0
	for _, j := range m.newest() {
		if j.record.Status == api.TaskRunning {
			continue
		}
		if ended++; ended > kept {
			old = append(old, j.record.ID)
		}
	}
	m.mu.Unlock()
	for _, id := range old {
		if err := m.erase(id); err != nil {
			slog.Warn("Cannot forget an old task; it is tried again", "task", id, "err", err)
			continue
		}
		m.mu.Lock()
		n, _ := strconv.Atoi(id)
		delete(m.jobs, n)
		m.mu.Unlock()
	}
}
