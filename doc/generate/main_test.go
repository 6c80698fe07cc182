package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/incusos/incusos/internal/rest"
)

const root = "../.."

func TestReferenceIsUpToDate(t *testing.T) {
	all, err := pages(root)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range all {
		got, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("%s is not what the code says; run `go generate ./doc/...`", name)
		}
	}
}

func TestEveryDocumentHasItsFields(t *testing.T) {
	all, err := pages(root)
	if err != nil {
		t.Fatal(err)
	}
	for name, wants := range map[string][]string{
		"doc/reference/seed.md": {
			"## install\n", "| `force_install` | true or false |", "### `target`\n", "| `sort_order` |",
			"### `interfaces[].routes[]`\n", "| `preseed` | mapping of anything |", "### `dns`\n",
		},
		"doc/reference/api.md": {
			"## GET /1.0\n", "| `os_version` | text |", "`release` (built to be kept", "### `config.pools[].special`\n", "The same fields as `config.pools[]`.",
			"`zfs-raidz3`", "| `is_primary` |", "`tailscale`", "## POST /1.0/system/:reboot\n", "| `smart` | mapping | see below |",
		},
	} {
		for _, want := range wants {
			if !strings.Contains(all[name], want) {
				t.Errorf("%s has no %q", name, want)
			}
		}
	}
}

func TestRoutesSayWhatTheyAreFor(t *testing.T) {
	for _, r := range rest.Routes(rest.Machine{}) {
		if r.About == "" || !strings.HasSuffix(r.About, ".") {
			t.Errorf("%s %s says %q about itself; want sentences", r.Method, r.Path, r.About)
		}
	}
}

// A tree is what no document may be: it has no end.
type tree struct {
	Name string          `json:"name"`
	Sub  map[string]node `json:"sub"`
}

type node struct {
	Trees []*tree `json:"trees"`
}

// twice has one type in two places, which is no circle.
type twice struct {
	A, B node2
	C    []node2
}

type node2 struct{ Name string }

func TestATypeThatContainsItselfIsRefused(t *testing.T) {
	err := endless([]rest.Route{{Method: "GET", Path: "/fine", Answer: reflect.TypeFor[twice]()}, {Method: "PUT", Path: "/tree", Body: reflect.TypeFor[tree]()}})
	if err == nil || !strings.HasPrefix(err.Error(), "PUT /tree: the type main.tree contains itself") {
		t.Errorf("endless() = %v, want it to name the type", err)
	}
}

func TestAbout(t *testing.T) {
	tests := map[string]struct{ name, comment, want string }{
		"says":      {"Disk", "A Disk says where.", "Says where."},
		"is":        {"Disk", "Disk is the place.", "The place."},
		"article":   {"Area", "An Area is a part.", "A part."},
		"lists":     {"Disk", "Disk lists what may be.", "Lists what may be."},
		"something": {"Disk", "Bytes of it.", "Bytes of it."},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := about(tt.name, comment(tt.comment)); got != tt.want {
				t.Errorf("about(%q) = %q, want %q", tt.comment, got, tt.want)
			}
		})
	}
}
