package console

import (
	"bytes"
	"errors"
	"path"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/incusos/incusos/internal/sys"
)

const testKey = "cbdefghi-jklnrtuv-cbdefghi-jklnrtuv-cbdefghi-jklnrtuv-cbdefghi-jklnrtuv"

// A recovery key is read from its code as a telephone would, and fits on the screen.
func TestCodeIsRead(t *testing.T) {
	for _, text := range []string{testKey, strings.ReplaceAll(testKey, "-", "")} {
		rows := code(text)
		if len(rows) == 0 {
			t.Fatalf("there is no code of %d characters", len(text))
		}
		got, err := readCode(rows)
		if err != nil || got != text {
			t.Errorf("the code says %q, %v; want %q\n%s", got, err, text, strings.Join(rows, "\n"))
		}
		if n := len((&secret{"title", text, []string{"one", "two"}, rows}).rows()); n > screenHeight {
			t.Errorf("the screen has %d rows, want at most %d", n, screenHeight)
		}
	}
	if rows := code(strings.Repeat(testKey, 3)); rows != nil {
		t.Errorf("a code of %d rows is larger than the screen", len(rows))
	}
}

// readCode reads a QR code of version 3 or 4 and level L, which have their bytes in one
// block (ISO/IEC 18004, "Reference decode algorithm"); it corrects no errors.
func readCode(rows []string) (string, error) {
	dark := modules(rows)
	size := len(dark) - 2*quiet
	at := func(x, y int) bool { return dark[y+quiet][x+quiet] }
	for i := range dark {
		if dark[0][i] || dark[i][0] || dark[quiet-1][i] || dark[i][quiet-1] || dark[len(dark)-1][i] || dark[i][len(dark)-1] {
			return "", errors.New("something dark is in the quiet zone")
		}
	}
	version := (size - 17) / 4
	if version < 3 || version > 4 || size != 17+4*version {
		return "", errors.New("want a code of version 3 or 4")
	}
	var format int // beside the upper left finder pattern; the first two bits are the level, three are the mask
	for _, x := range []int{0, 1, 2, 3, 4} {
		format = format<<1 | bit(at(x, 8))
	}
	format ^= 0b10101
	if format>>3 != 0b01 {
		return "", errors.New("want level L")
	}
	invert := masks()[format&7]
	var bits []int
	for right := size - 1; right > 0; right -= 2 {
		if right == 6 { // the vertical timing pattern
			right--
		}
		for i := range size {
			y := i
			if (size-1-right+bit(right < 6))/2%2 == 0 {
				y = size - 1 - i
			}
			for _, x := range []int{right, right - 1} {
				if !function(x, y, size) {
					bits = append(bits, bit(at(x, y) != invert(x, y)))
				}
			}
		}
	}
	take := func(n int) (v int) {
		for _, b := range bits[:n] {
			v = v<<1 | b
		}
		bits = bits[n:]
		return v
	}
	if mode := take(4); mode != 0b0100 {
		return "", errors.New("want a code of bytes")
	}
	var text []byte
	for range take(8) {
		text = append(text, byte(take(8)))
	}
	return string(text), nil
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// modules tells which modules are dark.
func modules(rows []string) [][]bool {
	var dark [][]bool
	for _, row := range rows {
		var upper, lower []bool
		for _, r := range row {
			upper = append(upper, r != '█' && r != '▀')
			lower = append(lower, r != '█' && r != '▄')
		}
		dark = append(dark, upper, lower)
	}
	return dark[:len(dark)-1] // the height of a code is odd
}

// function reports whether a module has no data: finder patterns with the format beside
// them, timing patterns, and the one alignment pattern.
func function(x, y, size int) bool {
	alignment := func(v int) bool { return v >= size-9 && v <= size-5 }
	return x < 9 && y < 9 || x < 9 && y >= size-8 || x >= size-8 && y < 9 || x == 6 || y == 6 || alignment(x) && alignment(y)
}

func masks() [8]func(x, y int) bool {
	return [8]func(x, y int) bool{
		func(x, y int) bool { return (x+y)%2 == 0 },
		func(_, y int) bool { return y%2 == 0 },
		func(x, _ int) bool { return x%3 == 0 },
		func(x, y int) bool { return (x+y)%3 == 0 },
		func(x, y int) bool { return (x/3+y/2)%2 == 0 },
		func(x, y int) bool { return x*y%2+x*y%3 == 0 },
		func(x, y int) bool { return (x*y%2+x*y%3)%2 == 0 },
		func(x, y int) bool { return ((x+y)%2+x*y%3)%2 == 0 },
	}
}

// A secret is on every console and in nothing that is kept, and goes off the screen in
// time or when it is told to.
func TestSecretIsOnConsolesOnly(t *testing.T) {
	for name, conceal := range map[string]func(*Console){
		"in time":     func(*Console) { time.Sleep(time.Minute + time.Second) },
		"when it may": func(c *Console) { c.Conceal() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				seen := make(map[string]string) // all that a serial console got, and what is on the screen
				files := sys.NewDir(t.TempDir()).WithKernel(func(name string, data []byte) (bool, error) {
					mu.Lock()
					defer mu.Unlock()
					if name == screenDevice {
						seen[name] = ""
					}
					seen[name] += string(data)
					return true, nil
				})
				for name, content := range map[string]string{screenDevice: "", "/dev/ttyS0": "", active: "tty0 ttyS0\n"} {
					if err := errors.Join(files.MkdirAll(path.Dir(name), 0o755), files.WriteFile(name, []byte(content), 0o600)); err != nil {
						t.Fatal(err)
					}
				}
				on := func(name string) string {
					mu.Lock()
					defer mu.Unlock()
					return seen[name]
				}
				var log bytes.Buffer
				c := New(files, &log)
				c.Show(Status{Name: "IncusOS", Version: "1"})
				c.Reveal(time.Minute, "the recovery key", testKey, "Keep it.")
				synctest.Wait()
				for _, console := range []string{screenDevice, "/dev/ttyS0"} {
					if got := on(console); !strings.Contains(got, testKey) || !strings.Contains(got, code(testKey)[10]) || !strings.Contains(got, "Keep it.") {
						t.Errorf("%s does not show the key and its code: %q", console, got)
					}
				}
				conceal(c)
				synctest.Wait()
				if got := on(screenDevice); strings.Contains(got, testKey) || !strings.Contains(got, "IncusOS") {
					t.Errorf("the screen is %q, want how the machine is", got)
				}
				c.Close()
				if strings.Contains(log.String(), testKey) || !strings.Contains(log.String(), "IncusOS 1") {
					t.Errorf("the log has %q", log.String())
				}
			})
		})
	}
}

// A failure is what matters most.
func TestFailureIsShownInsteadOfASecret(t *testing.T) {
	v := view{failure: []string{"cannot start"}, secret: &secret{text: testKey}}
	if got := v.draw(); strings.Contains(got, testKey) || !strings.Contains(got, "CANNOT START") {
		t.Errorf("the screen is %q, want the failure", got)
	}
}
