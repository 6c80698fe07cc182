package repo_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/incusos/incusos/internal/repo"
)

// catalog makes one of releases that are written "VERSION [channel[=percent]…] [-withdrawn] [>floor]".
func catalog(t *testing.T, lines ...string) *repo.Catalog {
	t.Helper()
	p := newPublisher(t)
	for _, line := range lines {
		words := strings.Fields(line)
		r := release(words[0])
		for _, w := range words[1:] {
			switch name, percent, phased := strings.Cut(w, "="); {
			case w == "-withdrawn":
				r.Withdrawn = "it eats files"
			case w[0] == '>':
				r.Floor = w[1:]
			case phased:
				var n int
				if _, err := fmt.Sscan(percent, &n); err != nil {
					t.Fatal(err)
				}
				r.Channels[name] = repo.Phase{Percent: n}
			default:
				r.Channels[w] = repo.Phase{Percent: 100}
			}
		}
		if err := p.author.Add(r); err != nil {
			t.Fatal(err)
		}
	}
	p.sign(start())
	_, c := mustRefresh(t, p.machine(), start(), p.server)
	return c
}

func TestChoose(t *testing.T) {
	const (
		v1, v2, v3 = "202611010000", "202611020000", "202611030000"
	)
	machine := repo.Machine{ID: "a machine", Architecture: "x86_64", Channel: "stable", Running: v1}
	with := func(change func(*repo.Machine)) repo.Machine {
		m := machine
		change(&m)
		return m
	}
	tests := map[string]struct {
		releases []string
		m        repo.Machine
		want     string // version, or why not
	}{
		"the newest":           {[]string{v1 + " stable", v2 + " stable", v3 + " stable"}, machine, v3},
		"of its channel":       {[]string{v1 + " stable", v2 + " stable", v3 + " testing"}, machine, v2},
		"up to date":           {[]string{v1 + " stable"}, machine, "Version 202611010000 is the newest in channel \"stable\""},
		"ahead of its channel": {[]string{v1 + " stable", v2 + " testing"}, with(func(m *repo.Machine) { m.Running = v2 }), "Version 202611020000 is the newest"},
		"empty channel":        {[]string{v1 + " testing"}, machine, "The repository has nothing for x86_64 in channel \"stable\""},
		"another architecture": {[]string{v2 + " stable"}, with(func(m *repo.Machine) { m.Architecture = "aarch64" }), "The repository has nothing for aarch64"},
		"withdrawn":            {[]string{v1 + " stable", v2 + " stable", v3 + " stable -withdrawn"}, machine, v2},
		"only that":            {[]string{v1 + " stable", v3 + " stable -withdrawn"}, machine, "Version 202611030000 was withdrawn: it eats files"},
		"was tried":            {[]string{v1 + " stable", v3 + " stable"}, with(func(m *repo.Machine) { m.Failed = []string{v3} }), "Version 202611030000 was tried and did not work"},
		"two were tried":       {[]string{v2 + " stable", v3 + " stable"}, with(func(m *repo.Machine) { m.Failed = []string{v2, v3} }), "Version 202611030000 was tried and did not work"},
		"below what was good":  {[]string{v2 + " stable"}, with(func(m *repo.Machine) { m.Blessed = v3 }), "Version 202611010000 is the newest"},
		"below the floor":      {[]string{v2 + " stable", v3 + " testing >" + v3}, machine, "Version 202611010000 is the newest"},
		"at the floor":         {[]string{v2 + " stable", v3 + " stable >" + v3}, machine, v3},
		"nobody's turn":        {[]string{v1 + " stable", v3 + " stable=0"}, machine, "Version 202611030000 is being rolled out and has reached 0 percent of machines"},
		"everybody's turn":     {[]string{v3 + " stable=100"}, machine, v3},
		"the one before it":    {[]string{v2 + " stable", v3 + " stable=0"}, machine, v2},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := catalog(t, tt.releases...).Choose(tt.m)
			if got.Release != nil && got.Release.Version != tt.want || got.Release == nil && !strings.HasPrefix(got.Why, tt.want) {
				t.Errorf("chose %+v, want %s", got, tt.want)
			}
		})
	}
}

// A roll-out reaches about as many machines as it says, never takes one back, and
// begins with others next time.
func TestRollOuts(t *testing.T) {
	const machines = 5000
	for _, percent := range []int{0, 1, 10, 50, 99, 100} {
		reached, both := 0, 0
		for i := range machines {
			id := fmt.Sprint("machine ", i)
			if !repo.Reached(id, "202611270000", percent) {
				continue
			}
			reached++
			if !repo.Reached(id, "202611270000", min(percent+1, 100)) {
				t.Errorf("%s is left out when %d percent become more", id, percent)
			}
			if repo.Reached(id, "202611280000", percent) {
				both++
			}
		}
		if want := machines * percent / 100; reached < want*7/10 || reached > want*13/10 {
			t.Errorf("%d percent reach %d machines, want about %d", percent, reached, want)
		}
		if percent == 10 && both > reached/4 {
			t.Errorf("%d of %d machines are among the first twice", both, reached)
		}
	}
}

func TestAuthorRefuses(t *testing.T) {
	changed := func(change func(*repo.Release)) repo.Release {
		r := release("202611271200", "stable")
		change(&r)
		return r
	}
	tests := map[string]struct {
		r    repo.Release
		want string
	}{
		"version":      {release("1.0"), "version \"1.0\": want twelve digits, YYYYMMDDhhmm"},
		"severity":     {changed(func(r *repo.Release) { r.Severity = "urgent" }), "severity \"urgent\": want one of none, low, medium, high, critical"},
		"channel":      {release("202611271200", "Stable"), "channel \"Stable\": want lower-case letters"},
		"percent":      {changed(func(r *repo.Release) { r.Channels["stable"] = repo.Phase{Percent: 101} }), "101 percent; want 0 to 100"},
		"floor":        {changed(func(r *repo.Release) { r.Floor = "old" }), "floor: version \"old\""},
		"reason":       {changed(func(r *repo.Release) { r.Withdrawn = "a\nb" }), "must be one line"},
		"path":         {changed(func(r *repo.Release) { r.Files[0].Path = "202611271200/../../etc/passwd" }), "the path should be below 202611271200/"},
		"other path":   {changed(func(r *repo.Release) { r.Files[0].Path = "202611271201/a" }), "the path should be below 202611271200/"},
		"kind":         {changed(func(r *repo.Release) { r.Files[0].Kind = "firmware" }), "kind \"firmware\": want one of changelog"},
		"architecture": {changed(func(r *repo.Release) { r.Files[0].Architecture = "amd64" }), "architecture \"amd64\": want one of x86_64, aarch64"},
		"component":    {changed(func(r *repo.Release) { r.Files[0].Component = "../os" }), "component \"../os\""},
		"tree":         {changed(func(r *repo.Release) { r.Files[1].Tree = "202611271200/none" }), "202611271200/none belongs to it and is not in the release"},
		"twice":        {changed(func(r *repo.Release) { r.Files[2].Path = r.Files[0].Path; r.Files[1].Tree = "" }), "two files are called 202611271200/x86_64/incus.raw"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := newPublisher(t)
			if err := p.author.Add(tt.r); err != nil {
				t.Fatal(err)
			}
			if _, err := p.author.Sign(p.keys, start(), repo.DefaultValidity()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Sign said %v, want %q", err, tt.want)
			}
		})
	}
}
