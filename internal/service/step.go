package service

import (
	"context"

	"github.com/incusos/incusos/api"
)

// A step is one thing to do. A plan is the list of their words, so that what is
// shown and what is done cannot differ.
type step struct {
	api.PlanStep
	do    func(context.Context) error
	apart bool // the steps after it do not need it
}

// doing returns a step.
func doing(action, object, risk string, do func(context.Context) error) step {
	return step{PlanStep: api.PlanStep{Action: action, Object: object, Risk: risk}, do: do}
}

func planOf(steps []step) api.Plan {
	var p api.Plan
	for _, s := range steps {
		p.Risk(s.Action, s.Object, s.Risk)
	}
	return p
}

// take takes the steps in order, until one fails that others need.
func take(ctx context.Context, steps []step) error {
	var errs []error
	for _, s := range steps {
		if err := s.do(ctx); err != nil {
			errs = append(errs, err)
			if !s.apart {
				break
			}
		}
	}
	return together(errs)
}
