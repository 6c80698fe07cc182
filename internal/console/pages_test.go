package console

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/incusos/incusos/internal/sys"
)

func numbered(n int) []string {
	var lines []string
	for i := range n {
		lines = append(lines, fmt.Sprintf("entry %d", i+1))
	}
	return lines
}

func twoPages(lines []string) []Page {
	return []Page{
		{Key: 'l', Name: "log", End: true, Read: func(context.Context) []string { return lines }},
		{Key: 'n', Name: "network", Read: func(context.Context) []string { return lines }},
	}
}

func TestPageOnTheScreen(t *testing.T) {
	pages := twoPages(nil)
	tests := map[string]struct {
		page *shown
		want string
	}{
		"one that fits": {newShown(pages[1], []string{"enp1s0 (carrier): 192.0.2.10/24", "clock: synchronized\x1b[2J"}), `<home><bold> network
 ------------------------------------------------------------------------------
 enp1s0 (carrier): 192.0.2.10/24
 clock: synchronized\x1b[2J
 ------------------------------------------------------------------------------
<bold> s status, l log, n network<end>`},
		"the end of a long one": {newShown(pages[0], numbered(100)), `<home><bold> log, lines 80 to 100 of 100
 ------------------------------------------------------------------------------
 ` + strings.Join(numbered(100)[79:], "\n ") + `
 ------------------------------------------------------------------------------
<bold> s status, l log, n network, b older, space newer<end>`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			v := view{status: Status{Name: "IncusOS"}, pages: pages, page: tt.page, failure: []string{"cannot install"}}
			if diff := cmp.Diff(tt.want, readable(v.draw())); diff != "" {
				t.Errorf("screen (-want +got):\n%s", diff)
			}
			if lines := strings.Count(v.draw(), "\r\n") + 1; lines > screenHeight {
				t.Errorf("%d lines, want at most %d", lines, screenHeight)
			}
		})
	}
	v := view{status: Status{Name: "IncusOS", Version: "1"}, pages: pages}
	if got := readable(v.draw()); !strings.Contains(got, "\n Keys        l log, n network\n") {
		t.Errorf("the status does not say that there are pages:\n%s", got)
	}
}

func TestPaging(t *testing.T) {
	s := newShown(Page{Name: "log", End: true}, numbered(50))
	steps := []struct {
		by   int
		want string
	}{
		{0, "log, lines 30 to 50 of 50"},
		{pageRows, "log, lines 30 to 50 of 50"},
		{-pageRows, "log, lines 9 to 29 of 50"},
		{-pageRows, "log, lines 1 to 21 of 50"},
		{-pageRows, "log, lines 1 to 21 of 50"},
		{pageRows, "log, lines 22 to 42 of 50"},
	}
	for _, step := range steps {
		s.move(step.by)
		if got := s.title(); got != step.want {
			t.Errorf("after moving by %d: %q, want %q", step.by, got, step.want)
		}
	}
	if s := newShown(Page{}, numbered(5000)); len(s.rows) != maxRows || s.rows[maxRows-1] != "entry 5000" {
		t.Errorf("a long page has %d lines and ends with %q", len(s.rows), s.rows[len(s.rows)-1])
	}
	if s := newShown(Page{End: true}, nil); len(s.seen()) != 0 {
		t.Errorf("an empty page shows %q", s.seen())
	}
}

func TestAPageDoesNotStayForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := sys.NewDir(t.TempDir())
		if err := files.WriteFile(screenDevice, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		c := New(files)
		defer c.Close()
		c.Show(Status{Name: "IncusOS", Version: "1"})
		k := &keyboard{console: c, name: screenDevice, pages: twoPages(numbered(50))}
		looking := func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.view.page != nil }
		k.press(t.Context(), 'l')
		time.Sleep(attention - time.Second)
		k.press(t.Context(), toOlder)
		time.Sleep(attention - time.Second)
		synctest.Wait()
		if !looking() {
			t.Error("the page went away while somebody looked at it")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if looking() {
			t.Error("the page stays")
		}
	})
}

func TestWhatIsNoTerminalIsNotListenedTo(t *testing.T) {
	files := sys.NewDir(t.TempDir())
	if err := files.WriteFile(screenDevice, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := New(files)
	defer c.Close()
	for _, name := range []string{screenDevice, "/dev/ttyS9"} {
		(&keyboard{console: c, name: name}).run(t.Context()) // returns
	}
}
