package api

import "strings"

// A Plan is what a change would do to the machine. One without steps means that
// the machine already matches.
type Plan struct {
	Steps []PlanStep `json:"steps"` // in the order they would be taken
}

// A PlanStep is one thing that a change would do.
type PlanStep struct {
	Action string `json:"action"`         // a verb, such as "write" or "restart"
	Object string `json:"object"`         // what it is done to, such as a file or a unit
	Risk   string `json:"risk,omitempty"` // what the operator may lose meanwhile; "" nothing
}

// A DryRun is the answer to a request that only asks what a change would do.
type DryRun struct {
	Text  string     `json:"text"`  // the steps in words, one a line; "" if there is nothing to do
	Steps []PlanStep `json:"steps"` // the same as data
}

// Do appends a step without risk.
func (p *Plan) Do(action, object string) { p.Risk(action, object, "") }

// Risk appends a step and says what the operator may lose meanwhile.
func (p *Plan) Risk(action, object, risk string) {
	p.Steps = append(p.Steps, PlanStep{action, object, risk})
}

// Empty reports whether there is nothing to do.
func (p Plan) Empty() bool { return len(p.Steps) == 0 }

// String lists the steps in words, one a line.
func (p Plan) String() string {
	var b strings.Builder
	for _, s := range p.Steps {
		b.WriteString(s.Action + " " + s.Object)
		if s.Risk != "" {
			b.WriteString(" (" + s.Risk + ")")
		}
		b.WriteString("\n")
	}
	return b.String()
}

// DryRun returns p as an answer.
func (p Plan) DryRun() DryRun {
	return DryRun{Text: p.String(), Steps: append([]PlanStep{}, p.Steps...)}
}

// A Trial is a configuration that is in force and not saved yet.
type Trial struct {
	Resource string `json:"resource"` // such as "system/network"
	Deadline string `json:"deadline"` // RFC 3339; without a confirmation by then it is undone
}
