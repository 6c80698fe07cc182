package console

import (
	"strings"

	"github.com/incusos/incusos/api"
)

// The screen is taken to be no larger than this, which every one is.
const (
	screenWidth  = 80
	screenHeight = 25
)

// devMark marks a build that is not to be trusted with anything.
const devMark = "DEVELOPMENT BUILD"

const rule = " ------------------------------------------------------------------------------"

// Control sequences of a Linux console (console_codes(4)).
const (
	home     = "\x1b[?25l\x1b[?7l\x1b[H" // no cursor, no wrapping, to the top
	eraseEOL = "\x1b[K"                  // to the end of the line, in the present colour
	eraseEOS = "\x1b[J"                  // to the end of the screen
	plain    = "\x1b[0m"
	bold     = "\x1b[1m"
	yellow   = "\x1b[1;33m"
	loud     = "\x1b[1;30;43m" // black on yellow
	alarm    = "\x1b[1;37;41m" // white on red
)

// A view is all that the screen shows.
type view struct {
	status      Status
	progress    string // "" if nothing is in progress
	done, total uint64
	messages    []string // newest last
	failure     []string // a title and lines; none if all is well
	pages       []Page   // that can be looked at
	page        *shown   // that is looked at instead of all this; nil: none
	secret      *secret  // that is shown instead, unless there is a failure; nil: none
}

// A row is one line of the screen.
type row struct{ style, text string }

// draw returns what makes the screen show v, whatever it showed before.
func (v view) draw() string {
	rows := fit(v.head(), v.tail())
	switch {
	case v.page != nil:
		rows = v.lookAt(*v.page)
	case v.secret != nil && v.failure == nil:
		rows = v.secret.rows()
	}
	var b strings.Builder
	b.WriteString(home)
	for i, r := range rows {
		b.WriteString(plain + r.style + cut(r.text, screenWidth) + eraseEOL)
		if i < len(rows)-1 {
			b.WriteString("\r\n")
		}
	}
	b.WriteString(plain + eraseEOS)
	return b.String()
}

// lookAt is a page, and below it the keys.
func (v view) lookAt(p shown) []row {
	rows := []row{{bold, " " + p.title()}, {"", rule}}
	for _, line := range p.seen() {
		rows = append(rows, row{"", " " + line})
	}
	return append(rows, row{"", rule}, row{bold, " " + hint(v.pages, len(p.rows) > pageRows)})
}

// fit returns head and as much of the end of tail as there is room for.
func fit(head, tail []row) []row {
	head = head[:min(len(head), screenHeight)]
	room := screenHeight - len(head)
	return append(head, tail[max(0, len(tail)-room):]...)
}

func (v view) head() []row {
	rows := v.title()
	if v.failure != nil {
		return append(rows, v.alarm()...)
	}
	if v.status.Name != "" {
		rows = append(rows, v.state()...)
	}
	if v.progress != "" {
		rows = append(rows, row{}, row{bold, " " + v.progress}, row{"", " " + bar(v.done, v.total)})
	}
	return append(rows, row{})
}

func (v view) title() []row {
	if v.status.Name == "" {
		return []row{{}}
	}
	rows := []row{{bold, " " + v.status.Name + " " + v.status.Version}}
	if v.status.Mode == api.ModeDev {
		rows = append(rows, row{loud, " " + devMark + ": whoever is at this machine is root on it"})
	}
	for _, a := range v.status.Alarms {
		for _, line := range wrap(clean(a), screenWidth-2) {
			rows = append(rows, row{alarm, " " + line})
		}
	}
	return append(rows, row{"", rule})
}

func (v view) state() []row {
	s := v.status
	rows := field(nil, "Host name", "", s.Hostname)
	rows = field(rows, "Reachable", "", reach(s))
	switch {
	case s.Starting != "":
		rows = field(rows, "State", bold, "starting: "+s.Starting)
	case len(s.Degraded) == 0:
		rows = field(rows, "State", bold, "ready")
	}
	for _, d := range s.Degraded {
		rows = field(rows, "Degraded", alarm, d)
	}
	for _, w := range s.Warnings {
		rows = field(rows, "Warning", yellow, w)
	}
	rows = field(rows, "Elapsed", "", seconds(s.Elapsed))
	if len(v.pages) > 0 {
		rows = field(rows, "Keys", "", offer(v.pages))
	}
	return rows
}

// field appends a name and its value, on as many lines as it takes.
func field(rows []row, name, style, value string) []row {
	const column = 13
	for i, line := range wrap(clean(value), screenWidth-column) {
		if i > 0 {
			name = ""
		}
		rows = append(rows, row{style, " " + name + strings.Repeat(" ", column-1-len(name)) + line})
	}
	return rows
}

// alarm is the red block: a title, then the lines.
func (v view) alarm() []row {
	rows := []row{{}, {alarm, ""}, {alarm, "  " + strings.ToUpper(clean(v.failure[0]))}, {alarm, ""}}
	for _, line := range v.failure[1:] {
		for _, part := range wrap(clean(line), screenWidth-4) {
			rows = append(rows, row{alarm, "  " + part})
		}
	}
	return append(rows, row{alarm, ""}, row{})
}

func (v view) tail() []row {
	var rows []row
	for _, m := range v.messages {
		for _, line := range wrap(clean(m), screenWidth-2) {
			rows = append(rows, row{"", " " + line})
		}
	}
	return rows
}

// bar draws progress with characters every font has.
func bar(done, total uint64) string {
	if total == 0 {
		return ""
	}
	const width = screenWidth - 4
	full := width * percent(done, total) / 100
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", width-full) + "]"
}

// wrap cuts text into lines of at most width characters, between words where
// it can. There is always one line.
func wrap(text string, width int) []string {
	var lines []string
	rest := []rune(text)
	for len(rest) > width {
		at := width
		for i := width; i > width/2; i-- {
			if rest[i] == ' ' {
				at = i
				break
			}
		}
		lines = append(lines, strings.TrimRight(string(rest[:at]), " "))
		rest = []rune(strings.TrimLeft(string(rest[at:]), " "))
	}
	return append(lines, string(rest))
}

// cut returns at most the first width characters of what is safe to show.
func cut(text string, width int) string {
	runes := []rune(clean(text))
	return string(runes[:min(len(runes), width)])
}
