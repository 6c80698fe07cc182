package sys

import (
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestListsAreAskedForUntilTheyAreWhole(t *testing.T) {
	asked := 0
	got, err := whole(func() ([]int, error) {
		if asked++; asked < 3 {
			return []int{1}, netlink.ErrDumpInterrupted
		}
		return []int{1, 2}, nil
	})
	if err != nil || !slices.Equal(got, []int{1, 2}) || asked != 3 {
		t.Errorf("whole() = %v, %v after %d times", got, err, asked)
	}
	if _, err := whole(func() ([]int, error) { return nil, netlink.ErrDumpInterrupted }); err == nil {
		t.Error("a list that is never whole is no error")
	}
}
