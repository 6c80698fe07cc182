package sys

import (
	"errors"
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestWholeAsksAgain(t *testing.T) {
	other := errors.New("no memory")
	for name, tt := range map[string]struct {
		interrupted int
		then        error
		asked       int
		want        error
	}{
		"at once":          {0, nil, 1, nil},
		"the fourth time":  {3, nil, 4, nil},
		"never":            {1000, nil, attempts, netlink.ErrDumpInterrupted},
		"with other words": {2, other, 3, other},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			got, err := whole(func() ([]int, error) {
				if asked++; asked <= tt.interrupted {
					return []int{1}, fmt.Errorf("listing: %w", netlink.ErrDumpInterrupted)
				}
				return []int{1, 2}, tt.then
			})
			if asked != tt.asked || !errors.Is(err, tt.want) || tt.want == nil && len(got) != 2 {
				t.Errorf("whole() = %v, %v after %d times; want %v after %d", got, err, asked, tt.want, tt.asked)
			}
		})
	}
}
