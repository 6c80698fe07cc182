package api

import "time"

// A TaskStatus says how far a task is.
type TaskStatus string

const (
	TaskRunning     TaskStatus = "running"
	TaskDone        TaskStatus = "done"
	TaskFailed      TaskStatus = "failed"
	TaskCancelled   TaskStatus = "cancelled"   // as somebody asked
	TaskInterrupted TaskStatus = "interrupted" // by a restart of the machine, and not resumed
)

// A Task is work that takes longer than a request.
type Task struct {
	ID          string     `json:"id"`
	Kind        string     `json:"kind"`        // such as "storage.scrub"
	Description string     `json:"description"` // for people
	Status      TaskStatus `json:"status"`
	Phase       string     `json:"phase"`           // what it is at, for people
	Done        uint64     `json:"done"`            // of Total, in the unit of the phase
	Total       uint64     `json:"total"`           // 0: not known
	Error       string     `json:"error,omitempty"` // why it failed
	Started     time.Time  `json:"started"`
	Ended       *time.Time `json:"ended,omitempty"`
	CanCancel   bool       `json:"can_cancel"`
}
