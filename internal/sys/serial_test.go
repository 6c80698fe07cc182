package sys_test

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/incusos/incusos/internal/sys"
)

func TestSpeed(t *testing.T) {
	p := newPTY(t)
	root := sys.NewDir("/")
	for _, bits := range []int{115200, 9600, 1500000} {
		if err := sys.SetSpeed(root, p.name, bits); err != nil {
			t.Fatal(err)
		}
		if got, err := sys.Speed(root, p.name); err != nil || got != bits {
			t.Errorf("speed is %d, %v; want %d", got, err, bits)
		}
	}
}

func TestSpeedOfWhatIsNoTerminal(t *testing.T) {
	d := sys.NewDir(t.TempDir())
	if _, err := sys.Speed(d, "/dev/ttyS0"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("speed of what is not there: %v", err)
	}
	if err := d.WriteFile("/dev/ttyS0", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := sys.Speed(d, "/dev/ttyS0"); got != 0 || err != nil {
		t.Errorf("speed of a file is %d, %v; want none", got, err)
	}
}
