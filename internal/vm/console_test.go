package vm

import (
	"context"
	"errors"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// typed is a serial port whose guest prints what the test says.
func typed(t *testing.T) (*Console, net.Conn) {
	t.Helper()
	guest, host := net.Pipe()
	c := newConsole(host, io.Discard, 1)
	t.Cleanup(func() { guest.Close() })
	return c, guest
}

func say(t *testing.T, guest io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(guest, text); err != nil {
		t.Fatal(err)
	}
}

func TestExpectSeesEveryWayToPrint(t *testing.T) {
	tests := map[string]struct {
		printed []string
		pattern string
		want    string // the whole line
	}{
		"a line":                           {[]string{"ready\r\n"}, `^ready$`, "ready"},
		"a line in pieces":                 {[]string{"re", "ad", "y\n"}, `^ready$`, "ready"},
		"a prompt without an end":          {[]string{"noise\nRecovery key: "}, `key: $`, "Recovery key: "},
		"a colour":                         {[]string{"\x1b[1;31mred\x1b[0m\n"}, `^red$`, "red"},
		"a colour in pieces":               {[]string{"\x1b[1", ";31mred\x1b", "[0m\n"}, `^red$`, "red"},
		"a title that only terminals show": {[]string{"\x1b]0;title\x07text\n"}, `^text$`, "text"},
		"a context mark of systemd":        {[]string{"\x1b]3008;start=1\x1b\\text\n"}, `^text$`, "text"},
		"firmware that moves the cursor":   {[]string{"\x1b[2J\x1b[01;01HBdsDxe: loading\x1b[02;01Hmore"}, `^BdsDxe`, "BdsDxe: loading"},
		"a progress bar":                   {[]string{"\r 10 %\r 20 %"}, `20`, " 20 %"},
		"bytes that are no text":           {[]string{"a\xffb\n"}, `^a.b$`, "a\uFFFDb"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, guest := typed(t)
				for _, text := range tt.printed {
					say(t, guest, text)
				}
				m, err := c.Expect(t.Context(), time.Second, regexp.MustCompile(tt.pattern))
				if m.Text != tt.want {
					t.Errorf("Expect(%q) = %q, want %q (error: %v)", tt.pattern, m.Text, tt.want, err)
				}
				guest.Close()
				synctest.Wait()
			})
		})
	}
}

func TestExpectMissesNothingAndPassesWhatItSaw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, guest := typed(t)
		say(t, guest, "one\ntwo\nthree\nPassphrase: ")
		synctest.Wait()
		word := regexp.MustCompile(`^(one|three|Passphrase:)`)
		for _, want := range []string{"one", "three", "Passphrase:"} {
			m, err := c.Expect(t.Context(), time.Second, word)
			if err != nil {
				t.Fatal(err)
			}
			if m.Groups[1] != want {
				t.Errorf("Expect() found %q, want %q", m.Groups[1], want)
			}
		}
		say(t, guest, "****\nagain\n")
		if m, err := c.Expect(t.Context(), time.Second, regexp.MustCompile(`Passphrase|again`)); m.Text != "again" {
			t.Errorf("after the prompt Expect() found %q, want %q (error: %v)", m.Text, "again", err)
		}
		guest.Close()
		synctest.Wait()
	})
}

func TestExpectSaysWhichPatternCameFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, guest := typed(t)
		say(t, guest, "Kernel panic\nready\n")
		m, err := c.Expect(t.Context(), time.Second, regexp.MustCompile(`ready`), regexp.MustCompile(`panic`))
		if err != nil || m.Pattern != 1 {
			t.Errorf("Expect() = pattern %d, %v, want pattern 1", m.Pattern, err)
		}
		guest.Close()
		synctest.Wait()
	})
}

func TestExpectGivesUp(t *testing.T) {
	tests := map[string]struct {
		after func(guest net.Conn, cancel context.CancelFunc)
		want  string
		is    error
	}{
		"in time, at the machine's scale": {func(net.Conn, context.CancelFunc) {}, "not seen within 1m0s", nil},
		"when the machine ends":           {func(g net.Conn, _ context.CancelFunc) { g.Close() }, "has ended", ErrEnded},
		"when nobody waits any more":      {func(_ net.Conn, c context.CancelFunc) { c() }, "canceled", context.Canceled},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, guest := typed(t)
				c.scale = 10
				say(t, guest, strings.Repeat("old\n", 100)+"the last words\nprompt> ")
				synctest.Wait()
				ctx, cancel := context.WithCancel(t.Context())
				tt.after(guest, cancel)
				_, err := c.Expect(ctx, 6*time.Second, regexp.MustCompile(`never`))
				if err == nil || !strings.Contains(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is) {
					t.Fatalf("Expect() = %v, want an error that has %q", err, tt.want)
				}
				if text := err.Error(); !strings.Contains(text, "the last words") || !strings.Contains(text, "prompt>") {
					t.Errorf("Expect() = %v, want the last lines in it", err)
				}
				if n := strings.Count(err.Error(), "\n"); n > 33 {
					t.Errorf("Expect() shows %d lines, want 30 and a prompt", n)
				}
				cancel()
				guest.Close()
				synctest.Wait()
			})
		})
	}
}

func TestFollowTellsEveryLineOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, guest := typed(t)
		say(t, guest, "one\ntwo\n")
		var got []string
		go c.Follow(t.Context(), func(l Line) { got = append(got, l.Text) })
		say(t, guest, "three\nfour")
		guest.Close()
		synctest.Wait()
		if want := "one two three four"; strings.Join(got, " ") != want {
			t.Errorf("Follow() told %q, want %q", got, want)
		}
	})
}

func TestTypeReachesTheGuest(t *testing.T) {
	c, guest := typed(t)
	go func() { _ = c.Type("secret\r") }()
	got := make([]byte, 7)
	if _, err := io.ReadFull(guest, got); err != nil || string(got) != "secret\r" {
		t.Errorf("the guest read %q, %v, want %q", got, err, "secret\r")
	}
}
