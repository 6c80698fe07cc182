package sys_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/incusos/incusos/internal/sys"
)

func TestWaitForSeesFilesBelowNewDirectories(t *testing.T) {
	d := sys.NewDir(t.TempDir())
	done := make(chan error, 1)
	go func() { done <- sys.WaitFor(t.Context(), d, "/dev/disk/by-partuuid/x") }()
	if err := d.WriteFile("/dev/disk/by-partuuid/x", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("WaitFor: %v", err)
	}
}

func TestWaitGoneReturnsAtOnceWhenThereIsNothing(t *testing.T) {
	if err := sys.WaitGone(t.Context(), sys.NewDir(t.TempDir()), "/dev/sdz"); err != nil {
		t.Errorf("WaitGone: %v", err)
	}
}

func TestWaitForEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	err := sys.WaitFor(ctx, sys.NewDir(t.TempDir()), "/never")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("WaitFor ended with %v, want the context's end", err)
	}
}
