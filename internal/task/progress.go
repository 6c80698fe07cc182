package task

import "fmt"

// A Progress is how a running task says what it is at.
type Progress struct {
	m   *Manager
	job *job
}

// Phase begins the phase name, a few words for people. It is on disk before
// Phase returns; a task that gets an error must stop.
func (p *Progress) Phase(name string) error {
	p.m.writing.Lock()
	defer p.m.writing.Unlock()
	r := p.m.snapshot(p.job)
	r.Phase, r.Done, r.Total = name, 0, 0
	if err := p.m.write(r); err != nil {
		return fmt.Errorf("noting that %q begins: %w", name, err)
	}
	p.m.mu.Lock()
	p.job.record = r
	p.m.mu.Unlock()
	p.m.show(r.Task)
	return nil
}

// Amount says how much of the phase is done, in any unit. Total is 0 if it is not
// known. It may be called often.
func (p *Progress) Amount(done, total uint64) {
	p.m.mu.Lock()
	p.job.record.Done, p.job.record.Total = done, total
	t := p.job.record.Task
	p.m.mu.Unlock()
	p.m.show(t)
}

// Resumed returns the phase in which the task was when the machine stopped; ""
// if this is its first run, or it had not come to one.
func (p *Progress) Resumed() string { return p.job.resumed }
