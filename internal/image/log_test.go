package image

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/incusos/incusos/internal/sys"
)

const printed = "‣ Building base image\nGet:1 a package\n‣ \"apt-get -o A=b\" returned non-zero exit code 100.\nlast "

func TestLogShowsStepsAndKeepsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var screen bytes.Buffer
		file := filepath.Join(t.TempDir(), "cache/build.log")
		l := NewLog(&screen, file, false)
		time.Sleep(1500 * time.Millisecond)
		l.Step("compiling %s", "incus-osd")
		for _, part := range strings.SplitAfter(printed, "B") { // lines come in pieces
			if _, err := l.Write([]byte(part)); err != nil {
				t.Fatal(err)
			}
		}
		if got, want := screen.String(), "    1.5s  compiling incus-osd\n    1.5s  Building base image\n"; got != want {
			t.Errorf("the screen shows %q, want %q", got, want)
		}
		if b, err := os.ReadFile(file); err != nil || string(b) != "compiling incus-osd\n"+printed {
			t.Errorf("the file holds %q, %v", b, err)
		}
	})
}

func TestLogSaysWhatTakesLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var screen bytes.Buffer
		l := NewLog(&screen, filepath.Join(t.TempDir(), "build.log"), false)
		end := l.Follow()
		if _, err := l.Write([]byte("CC [M] " + strings.Repeat("ä", width) + "\n")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(every + time.Second)
		end()
		if got := screen.String(); !strings.HasPrefix(got, "   30.0s  still at it: CC [M] ä") || !strings.HasSuffix(got, "ä...\n") {
			t.Errorf("the screen shows %q", got)
		}
	})
}

func TestVerboseLogShowsEverything(t *testing.T) {
	var screen bytes.Buffer
	l := NewLog(&screen, filepath.Join(t.TempDir(), "build.log"), true)
	if _, err := l.Write([]byte(printed)); err != nil {
		t.Fatal(err)
	}
	l.Failed()
	if got, want := screen.String(), printed[:strings.LastIndex(printed, "last")]; got != want {
		t.Errorf("the screen shows %q, want %q", got, want)
	}
}

// failing is a tool that prints and fails.
type failing struct{ sys.Runner }

func (failing) Run(_ context.Context, c sys.Cmd) ([]byte, error) {
	_, err := c.Stderr.Write([]byte("first\n" + strings.Repeat("line\n", tailLines-1) + "out of space\n"))
	if err != nil {
		return nil, err
	}
	return nil, &sys.ExecError{Name: c.Name, Code: 100, Stderr: "out of space"}
}

func TestAFailureRepeatsTheLastLines(t *testing.T) {
	var screen bytes.Buffer
	file := filepath.Join(t.TempDir(), "build.log")
	b := Builder{Exec: failing{}, Log: NewLog(&screen, file, false)}
	err := b.run(t.Context(), sys.Command("mkosi"))
	if want := "mkosi ended with status 100; its last lines are above, all of them in " + file; err == nil || err.Error() != want {
		t.Errorf("run() = %v, want %q", err, want)
	}
	if got := screen.String(); strings.Contains(got, "first") || !strings.HasSuffix(got, "  | line\n  | out of space\n") {
		t.Errorf("the screen shows %q", got)
	}
}
