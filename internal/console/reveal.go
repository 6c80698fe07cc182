package console

import (
	"slices"
	"time"

	"rsc.io/qr"
)

// quiet is how many light modules are around a QR code (ISO/IEC 18004, "Quiet zone").
// Where there is no room for them a code is left out: many cameras do not find it then.
const quiet = 4

// light is how the light modules of a code are drawn, whatever colours the terminal has:
// as text, since only that is really white on a Linux console.
const light = "\x1b[1;37;40m"

// A secret is what somebody at the machine is to copy.
type secret struct {
	title, text string
	lines       []string // what to do with it
	code        []string // rows of its QR code; none if it does not fit
}

// Reveal shows a secret on the consoles of the machine, as text and as a QR code, with
// lines that say what to do with it. It stays on the screen until Conceal, and no longer
// than d. What is told the same as a serial console without being one, such as the log,
// is not told this.
func (c *Console) Reveal(d time.Duration, title, text string, lines ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &secret{title, text, lines, code(text)}
	c.view.secret = s
	for _, d := range c.serials {
		if !d.kept {
			d.write([]byte(s.serial()))
		}
	}
	time.AfterFunc(d, func() { c.conceal(s) })
	c.redraw()
}

// Conceal takes away what Reveal shows.
func (c *Console) Conceal() { c.conceal(nil) }

// conceal takes a secret off the screen, unless it is another one by now; nil is any.
func (c *Console) conceal(s *secret) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.view.secret == nil || s != nil && c.view.secret != s {
		return
	}
	c.view.secret = nil
	c.redraw()
}

// rows is the secret on the screen.
func (s *secret) rows() []row {
	rows := []row{{bold, " " + s.title}}
	for _, line := range s.code {
		rows = append(rows, row{light, line})
	}
	for _, line := range wrap(clean(s.text), screenWidth-2) {
		rows = append(rows, row{bold, " " + line})
	}
	for _, line := range s.lines {
		rows = append(rows, row{"", " " + line})
	}
	return fit(rows, nil)
}

// serial is the secret on a serial console.
func (s *secret) serial() string {
	out := serial([]string{s.title})
	for _, line := range s.code {
		out += "incus-os: " + light + line + plain + "\r\n"
	}
	return out + serial(append([]string{s.text}, s.lines...))
}

// code returns the rows of a QR code, each of two rows of modules, in characters that
// every console has. There are none if it is too large for the screen with a title and a
// few lines.
func code(text string) []string {
	const others = 4
	c, err := qr.Encode(text, qr.L) // a screen does not get dirty: the smaller it is, the better
	if err != nil || c.Size+2*quiet > screenWidth || (c.Size+2*quiet+1)/2 > screenHeight-others {
		return nil
	}
	var rows []string
	for y := -quiet; y < c.Size+quiet; y += 2 {
		var line []rune
		for x := -quiet; x < c.Size+quiet; x++ {
			upper, lower := c.Black(x, y), c.Black(x, y+1)
			line = append(line, halves(!upper, !lower && y+1 < c.Size+quiet))
		}
		rows = append(rows, string(line))
	}
	return slices.Clip(rows)
}

// halves is a character of which the upper and the lower half are light or not.
func halves(upper, lower bool) rune {
	switch {
	case upper && lower:
		return '█'
	case upper:
		return '▀'
	case lower:
		return '▄'
	}
	return ' '
}
