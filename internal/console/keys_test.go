package console

import "testing"

func TestLastKey(t *testing.T) {
	tests := map[string]struct {
		typed string
		want  key
	}{
		"a letter":                      {"l", 'l'},
		"a capital":                     {"N", 'n'},
		"F2 on the screen":              {"\x1b[[B", 'l'},
		"F2 on a serial line":           {"\x1bOQ", 'l'},
		"F3 of a VT220":                 {"\x1b[13~", 'n'},
		"page up":                       {"\x1b[5~", toOlder},
		"space":                         {" ", toNewer},
		"Esc":                           {"\x1b", toStatus},
		"q, as in a pager":              {"q", toStatus},
		"one that is held down":         {"llllnn", 'n'},
		"return":                        {"l\r", 'l'},
		"a sequence that nobody knows":  {"\x1b[200~", 0},
		"a report of a mouse":           {"\x1b[<0;33;12M", 0},
		"a letter with Alt":             {"\x1bn", 0},
		"half a sequence":               {"\x1b[", 0},
		"a letter after a sequence":     {"\x1b[1;5Cn", 'n'},
		"no key":                        {"7\x00\xff", 0},
		"a page after what is no key":   {"\x1b[[Z9 l", 'l'},
		"nothing":                       {"", 0},
		"cursor keys in their two ways": {"\x1b[A\x1bOB", toNewer},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := lastKey([]byte(tt.typed)); got != tt.want {
				t.Errorf("lastKey(%q) = %q, want %q", tt.typed, got, tt.want)
			}
		})
	}
}

func FuzzLastKey(f *testing.F) {
	f.Add([]byte("l\x1b[[B\x1b[5~\x1b"))
	f.Add([]byte("\x1b[\x1bO\x1b[1;"))
	f.Fuzz(func(t *testing.T, typed []byte) {
		if k := lastKey(typed); k != 0 && k != ' ' && (k < 'a' || k > 'z') {
			t.Errorf("lastKey(%q) = %q", typed, k)
		}
	})
}
