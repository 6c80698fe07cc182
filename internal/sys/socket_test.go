package sys_test

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"strings"
	"testing"

	"github.com/incusos/incusos/internal/sys"
)

func TestDialUnix(t *testing.T) {
	short := t.TempDir()
	l, err := net.Listen("unix", short+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "hello")
			c.Close()
		}
	}()
	for name, deep := range map[string]string{"a short name": "/", "a long name": "/" + strings.Repeat("deep/", 40)} {
		t.Run(name, func(t *testing.T) {
			d := sys.NewDir(t.TempDir())
			if err := errors.Join(d.MkdirAll(deep, 0o755), d.Symlink(short+"/s", deep+"socket")); err != nil {
				t.Fatal(err)
			}
			c, err := d.DialUnix(t.Context(), deep+"socket")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if b, err := io.ReadAll(c); err != nil || string(b) != "hello" {
				t.Errorf("it says %q, %v", b, err)
			}
			if _, err := d.DialUnix(t.Context(), deep+"other/socket"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("DialUnix() = %v where there is nothing", err)
			}
		})
	}
}
