package api

import "time"

// A RollingState is how the members of an Incus cluster take turns in restarting for a
// new version. All members show the same, but for Member.
type RollingState struct {
	Member         string        `json:"member"`            // this machine
	MaxUnavailable int           `json:"max_unavailable"`   // how many members may be away at once
	Turns          []RollingTurn `json:"turns,omitempty"`   // members that are at it
	Waiting        []string      `json:"waiting,omitempty"` // members that come next, in order
	Paused         string        `json:"paused,omitempty"`  // why nobody begins: the member, the version and what went wrong
}

// A RollingTurn is a member that restarts for a new version.
type RollingTurn struct {
	Member  string       `json:"member"`
	Version string       `json:"version"`
	Phase   RollingPhase `json:"phase"`
	Since   time.Time    `json:"since"` // when its turn began
}

// A RollingPhase is how far a member is with its turn.
type RollingPhase string

// Phases in their order.
const (
	RollingBeginning  RollingPhase = "beginning"
	RollingLeaving    RollingPhase = "leaving" // its instances move, or are stopped
	RollingRestarting RollingPhase = "restarting"
	RollingWaiting    RollingPhase = "waiting"   // it runs the version, and its Incus serves nothing before all have a new one
	RollingReturning  RollingPhase = "returning" // its instances come back
)
