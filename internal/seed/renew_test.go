package seed

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys/systest"
)

const incusImage = "applications/incus_202601010000.raw"

// renewable returns a machine whose seed partition holds some files.
func renewable(t testing.TB, files map[string]string) *systest.Rig {
	t.Helper()
	rig := systest.New(t, systest.Sensible())
	if err := os.Truncate(rig.Host.Files.Path("/dev/vda2"), 64<<10); err != nil {
		t.Fatal(err)
	}
	if files != nil {
		if err := systest.WriteSeed(rig.Host.Files, files); err != nil {
			t.Fatal(err)
		}
	}
	return rig
}

// contents returns the sections and images in the archive of a machine.
func contents(t testing.TB, rig *systest.Rig) map[string]string {
	t.Helper()
	s, err := Open(rig.Host)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for name, sec := range s.sections {
		all[name] = string(sec.data)
	}
	for _, a := range s.images {
		r, err := s.OpenApplication(a)
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			t.Fatal(err)
		}
		all[a.Name+" "+a.Version] = string(content)
	}
	return all
}

func raw(sections map[string]string) map[string]json.RawMessage {
	out := make(map[string]json.RawMessage)
	for name, text := range sections {
		out[name] = json.RawMessage(text)
	}
	return out
}

func TestRenew(t *testing.T) {
	image := strings.Repeat("image", 300)
	installed := map[string]string{"network.yaml": "dns: {hostname: a}\n", "incus.yaml": "apply_defaults: true\n", incusImage: image}
	given := map[string]string{"incus": `{"apply_defaults":false}`, "services": `{"ovn":{}}`, "install": `{"force_install":true}`}
	tests := map[string]struct {
		instead bool
		want    map[string]string
	}{
		"added":   {false, map[string]string{"network": "dns: {hostname: a}\n", "incus": given["incus"], "services": given["services"], "incus 202601010000": image}},
		"instead": {true, map[string]string{"incus": given["incus"], "services": given["services"], "incus 202601010000": image}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			rig := renewable(t, installed)
			for range 3 { // each reset has a machine that was reset before
				write, err := Renew(rig.Host.Files, raw(given), tt.instead)
				if err != nil {
					t.Fatal(err)
				}
				if err := write(); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tt.want, contents(t, rig)); diff != "" {
					t.Errorf("the seed (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestRenewRefuses(t *testing.T) {
	withImage := map[string]string{incusImage: "image"}
	tests := map[string]struct {
		files map[string]string
		given map[string]string
		want  string
		field bool
	}{
		"an unknown section": {withImage, map[string]string{"netwrok": `{}`}, `seeds.netwrok: there is no such section; did you mean "network"?`, true},
		"an unknown field":   {withImage, map[string]string{"network": `{"dnss":{}}`}, `seeds.network: network.json:1:2: unknown field "dnss"`, true},
		"a bad value":        {withImage, map[string]string{"applications": `{"applications":[]}`}, `seeds.applications: applications.json:1:`, true},
		"a bad install":      {withImage, map[string]string{"install": `{"target":{"bus":"x"}}`}, "seeds.install: install.json:1:", true},
		"no JSON":            {withImage, map[string]string{"incus": `{`}, "seeds.incus: ", true},
		"an application without image": {withImage, map[string]string{"applications": `{"applications":[{"name":"incus"},{"name":"ceph"}]}`},
			`an image of the application "ceph"`, false},
		"no image of Incus":        {map[string]string{"network.yaml": ""}, nil, `an image of the application "incus"`, false},
		"a mistake that was there": {map[string]string{"network.yaml": "dns: 7", incusImage: ""}, nil, "has a mistake, seed-data: network.yaml:1:", false},
		"a full partition":         {map[string]string{incusImage: strings.Repeat("x", 62<<10)}, map[string]string{"incus": `{}`}, "is full", false},
		"something else":           {map[string]string{"weather.yaml": ""}, nil, "cannot be added to", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			rig := renewable(t, tt.files)
			_, err := Renew(rig.Host.Files, raw(tt.given), false)
			_, field := errors.AsType[*api.FieldError](err)
			_, refusal := errors.AsType[*api.Error](err)
			if field != tt.field || refusal == tt.field || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Renew() = %v, want %q", err, tt.want)
			}
		})
	}
	t.Run("no partition", func(t *testing.T) {
		rig := systest.New(t, systest.Machine{})
		if _, err := Renew(rig.Host.Files, nil, true); err == nil || !strings.Contains(err.Error(), `no partition labelled "seed-data"`) {
			t.Errorf("Renew() = %v", err)
		}
	})
}

// Disks write what they were given before a flush in any order, if at all. As
// long as the first block is not written, the archive is the old one.
func TestCutRenewalLeavesTheOldSeed(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		files := map[string]string{incusImage: strings.Repeat("i", rapid.IntRange(0, 2000).Draw(rt, "image")), "incus.yaml": "apply_defaults: true\n"}
		sections := map[string]section{"network": {builtIn, "network.json", []byte(`{"dns":{"hostname":"` + rapid.StringMatching(`[a-z]{1,60}`).Draw(rt, "name") + `"}}`)}}
		var b bytes.Buffer
		s := &Seed{sections: map[string]section{"incus": {builtIn, "incus.yaml", []byte(files["incus.yaml"])}}}
		if err := s.Forward(&b); err != nil {
			rt.Fatal(err)
		}
		disk := append(b.Bytes(), make([]byte, 8192)...)
		old := reread(rt, disk)
		s.end, s.sections = old.end, sections
		a, err := s.addition()
		if err != nil {
			rt.Fatal(err)
		}
		for at := block; at < len(a.data); at += block {
			if rapid.Bool().Draw(rt, "written") {
				copy(disk[int(a.at)+at:], a.data[at:at+block])
			}
		}
		if diff := cmp.Diff(text(old), text(reread(rt, disk))); diff != "" {
			rt.Fatalf("after a cut (-want +got):\n%s", diff)
		}
		copy(disk[a.at:], a.data)
		if diff := cmp.Diff(text(s), text(reread(rt, disk))); diff != "" {
			rt.Errorf("when all is written (-want +got):\n%s", diff)
		}
	})
}

func reread(t *rapid.T, disk []byte) *Seed {
	s := &Seed{sections: make(map[string]section)}
	if err := s.readArchive("", bytes.NewReader(disk)); err != nil {
		t.Fatal(err)
	}
	return s
}

func text(s *Seed) (lines []string) {
	for _, name := range slices.Sorted(maps.Keys(s.sections)) {
		lines = append(lines, name+": "+string(s.sections[name].data))
	}
	return lines
}

// A disk without any seed gets one.
func TestRenewOfAnEmptyPartition(t *testing.T) {
	rig := renewable(t, nil)
	s := &Seed{files: rig.Host.Files, sections: map[string]section{"incus": {builtIn, "incus.json", []byte("{}")}}}
	a, err := s.addition()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.write(rig.Host.Files, "/dev/vda2"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"incus": "{}"}, contents(t, rig)); diff != "" {
		t.Errorf("the seed (-want +got):\n%s", diff)
	}
}
