package metrics

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The two forms of text. OpenMetrics ends with a line that says so; Incus puts
// the plain one behind its own figures, where such a line would cut off what
// comes after it.
const (
	plainType = "text/plain; version=0.0.4; charset=utf-8"
	openType  = "application/openmetrics-text; version=1.0.0; charset=utf-8"
	openEnd   = "# EOF\n"
)

// ServeHTTP implements http.Handler: GET /metrics.
func (m *Metrics) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path != "/metrics":
		http.Error(w, "There is only /metrics.", http.StatusNotFound)
		return
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "Figures can only be read.", http.StatusMethodNotAllowed)
		return
	}
	body, kind := text(m.Read(r.Context())), plainType
	if strings.Contains(r.Header.Get("Accept"), "application/openmetrics-text") {
		body, kind = body+openEnd, openType
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write([]byte(body)) // whoever asked may be gone
}

// text writes figures down, family by family as both forms ask for, and in an
// order that is the same every time.
func text(figures []Figure) string {
	figures = slices.Clone(figures)
	slices.SortStableFunc(figures, func(a, b Figure) int {
		return cmp.Or(strings.Compare(a.family.name, b.family.name), strings.Compare(a.object, b.object))
	})
	var b strings.Builder
	name := ""
	for _, f := range figures {
		if f.family.name != name {
			name = f.family.name
			b.WriteString("# HELP " + name + " " + f.family.help + "\n# TYPE " + name + " gauge\n")
		}
		b.WriteString(name + labels(f) + " " + strconv.FormatFloat(f.value, 'f', -1, 64) + "\n")
	}
	return b.String()
}

// labels are in braces; those without a value are left out, which means the same.
func labels(f Figure) string {
	var out []string
	for _, l := range append([]field{{f.family.object, f.object}}, f.fields...) {
		if l.name != "" && l.value != "" {
			out = append(out, l.name+`="`+escape(l.value)+`"`)
		}
	}
	if out == nil {
		return ""
	}
	return "{" + strings.Join(out, ",") + "}"
}

// escape makes s the value of a label. What drives call themselves is up to
// their makers.
func escape(s string) string {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s)
}
