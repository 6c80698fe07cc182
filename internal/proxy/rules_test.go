package proxy

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/incusos/incusos/api"
)

func TestRoute(t *testing.T) {
	servers := map[string]api.NetworkProxyServer{"corp": {Host: "c:1"}, "lab": {Host: "l:1"}}
	rules := []api.NetworkProxyRule{
		rule("*.example.net|example.net", "direct"),
		rule("ads.*|10.9.*", "none"),
		rule("2001:db8:*", "lab"),
		rule("*.org", "corp"),
		rule("gone.test", "former"),
	}
	tests := map[string]struct {
		c    api.NetworkProxy
		host string
		want string // "refused" or "wrong" for errors
	}{
		"nothing configured":                     {api.NetworkProxy{}, "a.test", "direct"},
		"no rules: the first proxy by name":      {api.NetworkProxy{Servers: servers}, "a.test", "corp"},
		"a rule for the domain":                  {api.NetworkProxy{Servers: servers, Rules: rules}, "example.net", "direct"},
		"a rule for what is in it":               {api.NetworkProxy{Servers: servers, Rules: rules}, "a.b.EXAMPLE.net.", "direct"},
		"not for what only ends the same":        {api.NetworkProxy{Servers: servers, Rules: rules}, "badexample.net", "direct"},
		"a forbidden destination":                {api.NetworkProxy{Servers: servers, Rules: rules}, "ads.example.org", "refused"},
		"a forbidden address":                    {api.NetworkProxy{Servers: servers, Rules: rules}, "10.9.8.7", "refused"},
		"a proxy for addresses":                  {api.NetworkProxy{Servers: servers, Rules: rules}, "2001:db8::1", "lab"},
		"a proxy for names":                      {api.NetworkProxy{Servers: servers, Rules: rules}, "debian.org", "corp"},
		"what no rule is about":                  {api.NetworkProxy{Servers: servers, Rules: rules}, "debian.com", "direct"},
		"a rule that leads to a proxy of before": {api.NetworkProxy{Servers: servers, Rules: rules}, "gone.test", "wrong"},
		"the first rule decides":                 {api.NetworkProxy{Servers: servers, Rules: []api.NetworkProxyRule{rule("*", "lab"), rule("*", "none")}}, "a", "lab"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := outcome(route(tt.c, tt.host)); got != tt.want {
				t.Errorf("route(%q) = %s, want %s", tt.host, got, tt.want)
			}
		})
	}
}

func rule(destination, target string) api.NetworkProxyRule {
	return api.NetworkProxyRule{Destination: destination, Target: target}
}

func outcome(w way, err error) string {
	switch _, refused := err.(*refusedError); { //nolint:errorlint // nobody wraps it
	case refused:
		return "refused"
	case err != nil:
		return "wrong"
	case w.direct():
		return "direct"
	}
	return w.name
}

// The rules mean what the words of the documentation say, written down once more
// with regular expressions.
func TestRouteFollowsTheFirstRule(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		label := rapid.StringMatching(`[aAb]{1,2}`)
		host := strings.Join(rapid.SliceOfN(label, 1, 4).Draw(t, "host"), ".")
		pattern := rapid.StringMatching(`[aAb*]{1,3}(\.[ab*]{1,2}){0,2}`)
		c := api.NetworkProxy{Servers: map[string]api.NetworkProxyServer{"p": {}, "q": {}}}
		for range rapid.IntRange(0, 4).Draw(t, "rules") {
			destination := strings.Join(rapid.SliceOfN(pattern, 1, 3).Draw(t, "patterns"), "|")
			c.Rules = append(c.Rules, rule(destination, rapid.SampledFrom([]string{"p", "q", "direct", "none"}).Draw(t, "target")))
		}
		want := "p" // the first by name
		if len(c.Rules) > 0 {
			want = "direct"
		}
		if i := slices.IndexFunc(c.Rules, func(r api.NetworkProxyRule) bool { return covers(r.Destination, host) }); i >= 0 {
			want = strings.Replace(c.Rules[i].Target, "none", "refused", 1)
		}
		if got := outcome(route(c, host)); got != want {
			t.Fatalf("route(%q) = %s, want %s", host, got, want)
		}
		more := api.NetworkProxy{Servers: maps.Clone(c.Servers), Rules: append(slices.Clone(c.Rules), rule("*", "direct"))}
		if got := outcome(route(more, host)); got != want && len(c.Rules) > 0 {
			t.Fatalf("a last rule for what goes directly anyway makes %s of %s", got, want)
		}
	})
}

func covers(destination, host string) bool {
	var words []string
	for p := range strings.SplitSeq(destination, "|") {
		words = append(words, strings.ReplaceAll(regexp.QuoteMeta(p), `\*`, ".*"))
	}
	return regexp.MustCompile(`(?i)^(` + strings.Join(words, "|") + `)$`).MatchString(host)
}

func FuzzDestination(f *testing.F) {
	for _, s := range []string{"example.net:443", "[::1]:80", ":1", "a:0", "a@b:1", "a:99999", "x y:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, err := destination(s)
		if err == nil && (host == "" || strings.ContainsAny(host, " /@") || !strings.Contains(s, host)) {
			t.Errorf("destination(%q) = %q", s, host)
		}
		_, _ = route(api.NetworkProxy{Rules: []api.NetworkProxyRule{rule(s, "direct")}}, host)
	})
}
