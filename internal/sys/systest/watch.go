package systest

import "context"

// Become gives a unit a state that nobody asked for, such as "failed".
func (u *Units) Become(unit, state string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.become(unit, state)
}

// become tells whoever watches the unit. The caller holds mu.
func (u *Units) become(unit, state string) {
	u.states[unit] = state
	for _, w := range u.watched[unit] {
		select {
		case w <- struct{}{}:
		default: // has not looked since the last change
		}
	}
}

// Watch implements sys.Units.
func (u *Units) Watch(_ context.Context, unit string) (<-chan struct{}, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	w := make(chan struct{}, 1)
	u.watched[unit] = append(u.watched[unit], w)
	return w, nil
}
