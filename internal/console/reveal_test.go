package console

import (
	"bytes"
	"errors"
	"image"
	"path"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"

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

// readCode reads the code as one does that photographs a screen: from an image.
func readCode(rows []string) (string, error) {
	const pixels = 4 // for each module
	dark := modules(rows)
	size := len(dark)
	for i := range quiet {
		for j := range size {
			if dark[i][j] || dark[j][i] || dark[size-1-i][j] || dark[j][size-1-i] {
				return "", errors.New("something dark is in the quiet zone")
			}
		}
	}
	shown := image.NewGray(image.Rect(0, 0, size*pixels, size*pixels))
	for i := range shown.Pix {
		if x, y := i%shown.Stride/pixels, i/shown.Stride/pixels; !dark[y][x] {
			shown.Pix[i] = 0xff
		}
	}
	bitmap, err := gozxing.NewBinaryBitmapFromImage(shown)
	if err != nil {
		return "", err
	}
	found, err := qrcode.NewQRCodeReader().Decode(bitmap, nil)
	if err != nil {
		return "", err
	}
	return found.GetText(), nil
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
