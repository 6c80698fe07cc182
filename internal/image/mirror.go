package image

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A mirror says where Debian's archives are.
type mirror struct {
	main     string // URI of the archive
	security string // URI of the security archive
}

// mirror returns the one the Builder was given, or the one this host's apt uses.
func (b *Builder) mirror() (mirror, error) {
	if b.Mirror != "" {
		main := strings.TrimSuffix(b.Mirror, "/")
		return mirror{main, main + "-security"}, nil
	}
	return hostMirror("/etc/apt")
}

// hostMirror reads apt's configuration (sources.list(5), both formats).
func hostMirror(dir string) (mirror, error) {
	names, err := filepath.Glob(filepath.Join(dir, "sources.list.d", "*"))
	if err != nil {
		return mirror{}, err
	}
	var m mirror
	for _, name := range append(names, filepath.Join(dir, "sources.list")) {
		b, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return mirror{}, err
		}
		for _, s := range parseSources(string(b), strings.HasSuffix(name, ".sources")) {
			m.add(s)
		}
	}
	if m.main == "" {
		return mirror{}, fmt.Errorf("apt on this host names no Debian mirror (looked in %s); give one with --mirror", dir)
	}
	if m.security == "" {
		m.security = m.main + "-security"
	}
	return m, nil
}

// add takes the first main and the first security archive it is offered.
func (m *mirror) add(s source) {
	uri := strings.TrimSuffix(s.uri, "/")
	if !strings.HasPrefix(uri, "http://") && !strings.HasPrefix(uri, "https://") {
		return
	}
	switch {
	case strings.HasSuffix(s.suite, "-security") && m.security == "":
		m.security = uri
	case strings.HasSuffix(uri, "/debian") && m.main == "":
		m.main = uri
	}
}

// writeSources writes an apt source for the given suites of the main archive.
func (m mirror) writeSources(name, suites string) error {
	text := stanza(m.main, suites) + "\n" + stanza(m.security, "trixie-security")
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil { //nolint:gosec // apt reads it as another user
		return err
	}
	return os.WriteFile(name, []byte(text), 0o644) //nolint:gosec // as above
}

func stanza(uri, suites string) string {
	return fmt.Sprintf("Types: deb\nURIs: %s\nSuites: %s\nComponents: main contrib non-free-firmware\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n", uri, suites)
}

// A source is one archive and suite of apt's configuration.
type source struct{ uri, suite string }

// parseSources reads one file, in the deb822 format or in lines.
func parseSources(text string, deb822 bool) []source {
	if !deb822 {
		return parseLines(text)
	}
	var out []source
	for para := range strings.SplitSeq(text, "\n\n") {
		fields := make(map[string]string)
		for line := range strings.Lines(para) {
			if key, value, ok := strings.Cut(line, ":"); ok && !strings.HasPrefix(line, "#") {
				fields[strings.ToLower(key)] = value
			}
		}
		for _, uri := range strings.Fields(fields["uris"]) {
			for _, suite := range strings.Fields(fields["suites"]) {
				out = append(out, source{uri, suite})
			}
		}
	}
	return out
}

// parseLines reads "deb [options] uri suite components" lines.
func parseLines(text string) []source {
	var out []source
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		line, ok := strings.CutPrefix(strings.TrimSpace(s.Text()), "deb ")
		if !ok {
			continue
		}
		if _, rest, ok := strings.Cut(line, "]"); ok {
			line = rest
		}
		if f := strings.Fields(line); len(f) >= 2 {
			out = append(out, source{f[0], f[1]})
		}
	}
	return out
}
