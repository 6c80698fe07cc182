package image

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHostMirror(t *testing.T) {
	const main, security = "https://mirror.example.org/debian", "https://mirror.example.org/debian-security"
	tests := map[string]struct {
		files map[string]string // below /etc/apt
		want  mirror
	}{
		"lines": {map[string]string{"sources.list": `
# deb http://old.example.org/debian bookworm main
deb-src https://src.example.org/debian trixie main
deb https://mirror.example.org/debian/ trixie main contrib
deb https://mirror.example.org/debian trixie-updates main
deb https://security.example.org/debian-security trixie-security main
`}, mirror{main, "https://security.example.org/debian-security"}},
		"lines with options in brackets": {map[string]string{
			"sources.list": "  deb [ arch=amd64 signed-by=/usr/share/keyrings/x.gpg ] https://mirror.example.org/debian trixie main\n",
		}, mirror{main, security}},
		"deb822": {map[string]string{"sources.list.d/debian.sources": `# the archive
Types: deb deb-src
URIs: https://mirror.example.org/debian/
Suites: trixie trixie-updates
Components: main

Types: deb
URIs: https://security.example.org/debian-security
Suites: trixie-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
`}, mirror{main, "https://security.example.org/debian-security"}},
		"deb822 in other capitals": {map[string]string{
			"sources.list.d/debian.sources": "types: deb\nuris: https://mirror.example.org/debian\nsuites: trixie\n",
		}, mirror{main, security}},
		"security in the archive itself": {map[string]string{
			"sources.list": "deb https://mirror.example.org/debian trixie-security main\ndeb https://mirror.example.org/debian trixie main\n",
		}, mirror{main, main}},
		"the first of two, without others": {map[string]string{
			"sources.list.d/a.list":         "deb https://download.example.com/tools stable main\n",
			"sources.list.d/debian.sources": "URIs: cdrom:[Debian] https://mirror.example.org/debian\nSuites: trixie\n",
			"sources.list":                  "deb https://second.example.org/debian trixie main\n",
		}, mirror{main, security}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range tt.files {
				put(t, filepath.Join(dir, file), text)
			}
			got, err := hostMirror(dir)
			if err != nil || got != tt.want {
				t.Errorf("hostMirror() = %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

func TestHostWithoutMirror(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":        "",
		"another system": "deb https://archive.example.org/ubuntu noble main\n",
		"local files":    "deb file:/srv/debian trixie main\n",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			put(t, filepath.Join(dir, "sources.list"), text)
			if _, err := hostMirror(dir); err == nil || !strings.Contains(err.Error(), "give one with --mirror") {
				t.Errorf("hostMirror() = %v, want it to ask for --mirror", err)
			}
		})
	}
}

func TestGivenMirrorCounts(t *testing.T) {
	b := Builder{Mirror: "https://mirror.example.org/debian/"}
	want := mirror{"https://mirror.example.org/debian", "https://mirror.example.org/debian-security"}
	if got, err := b.mirror(); err != nil || got != want {
		t.Errorf("mirror() = %+v, %v; want %+v", got, err, want)
	}
}

// What is written for the tools tree must be what is read from a host.
func TestWrittenSourcesAreUnderstood(t *testing.T) {
	dir := t.TempDir()
	m := mirror{"https://mirror.example.org/debian", "https://security.example.org/debian-security"}
	if err := m.writeSources(filepath.Join(dir, "sources.list.d/debian.sources"), "trixie trixie-updates"); err != nil {
		t.Fatal(err)
	}
	if got, err := hostMirror(dir); err != nil || got != m {
		t.Errorf("hostMirror() = %+v, %v; want %+v", got, err, m)
	}
}

func put(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
