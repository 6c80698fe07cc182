package sys_test

import (
	"errors"
	"testing"

	"github.com/incusos/incusos/internal/sys"
)

func TestExchange(t *testing.T) {
	d := sys.NewDir(t.TempDir())
	for name, content := range map[string]string{"/a/file": "old", "/b/file": "new"} {
		if err := d.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cut := d.WithFault(func(string, string) error { return errors.New("cut") })
	if err := cut.Exchange("/a", "/b"); err == nil {
		t.Error("Exchange() succeeded on a disk that is cut off")
	}
	if err := errors.Join(d.Exchange("/a", "/b"), d.SyncTree("/a")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"/a/file": "new", "/b/file": "old"} {
		if b, err := d.ReadFile(name); err != nil || string(b) != want {
			t.Errorf("%s holds %q, %v; want %q", name, b, err, want)
		}
	}
	if err := d.Exchange("/a", "/nothing"); err == nil {
		t.Error("Exchange() with nothing succeeded")
	}
}
