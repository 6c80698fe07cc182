package sets_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/incusos/incusos/internal/sets"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

const (
	one, two, three = "202601010000", "202602010000", "202603010000"
	file            = "/var/lib/incus-os/application-sets.json"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newFiles(t *testing.T) sys.Dir {
	t.Helper()
	return systest.New(t, systest.Sensible()).Host.Files
}

func put(t *testing.T, files sys.Dir, names ...string) {
	t.Helper()
	for _, name := range names {
		must(t, files.WriteFile(name, []byte("image"), 0o600))
	}
}

func images(t *testing.T, files sys.Dir) (found []string) {
	t.Helper()
	versions, err := files.ReadDir(sets.Store)
	must(t, err)
	for _, v := range versions {
		entries, err := files.ReadDir(sets.Store + "/" + v.Name())
		must(t, err)
		for _, e := range entries {
			found = append(found, v.Name()+"/"+e.Name())
		}
	}
	return found
}

// An image stays as long as one of the two slots needs it, and goes when the slot
// is given to another version.
func TestImagesStayWhileASlotNeedsThem(t *testing.T) {
	files := newFiles(t)
	put(t, files, sets.Path("incus", one), sets.Path("ovn", one))
	s := sets.Open(files)
	must(t, s.Runs(one, sets.Set{"incus": one, "ovn": one}))
	must(t, s.Stage(one, two, sets.Set{"incus": two, "ovn": one}))
	put(t, files, sets.Path("incus", two))
	must(t, s.Prune())
	if got, want := images(t, files), []string{one + "/incus.raw", one + "/ovn.raw", two + "/incus.raw"}; !slices.Equal(got, want) {
		t.Errorf("stored are %q, want %q: both slots need theirs", got, want)
	}
	// Two runs; three takes the place of one.
	must(t, s.Runs(two, sets.Set{"incus": two, "ovn": one}))
	must(t, s.Stage(two, three, sets.Set{"incus": three, "ovn": three}))
	put(t, files, sets.Path("incus", three)+sets.Part)
	again := sets.Open(files) // after a start
	must(t, again.Prune())
	if got, want := images(t, files), []string{one + "/ovn.raw", two + "/incus.raw", three + "/incus.raw.part"}; !slices.Equal(got, want) {
		t.Errorf("stored are %q, want %q: nobody needs Incus of the first, and ovn of it is still in use", got, want)
	}
	// A fourth version, before the third was whole.
	const four = "202604010000"
	must(t, again.Stage(two, four, sets.Set{"incus": four}))
	must(t, again.Prune())
	if got, want := images(t, files), []string{one + "/ovn.raw", two + "/incus.raw"}; !slices.Equal(got, want) {
		t.Errorf("stored are %q, want %q", got, want)
	}
	if files.Exists(sets.Store + "/" + three) {
		t.Error("the directory of a version without images is still there")
	}
}

// A version of which nothing was written down goes back to what it ran with.
func TestStagingWritesDownWhatRuns(t *testing.T) {
	files := newFiles(t)
	put(t, files, sets.Path("incus", one))
	must(t, sets.Activate(files, "incus", one))
	s := sets.Open(files)
	must(t, s.Stage(one, two, sets.Set{"incus": two}))
	if of, err := s.Of(one); err != nil || of.Now["incus"] != one {
		t.Errorf("the version that runs has %+v (%v), want what is active", of, err)
	}
}

// What nobody ever wrote down is somebody's own, and stays.
func TestStrangeImagesStay(t *testing.T) {
	files := newFiles(t)
	put(t, files, sets.Path("incus", one), sets.Path("incus", "202512010000"))
	s := sets.Open(files)
	must(t, s.Runs(one, sets.Set{"incus": one}))
	must(t, s.Prune())
	if got := images(t, files); len(got) != 2 {
		t.Errorf("stored are %q, want both", got)
	}
}

// An application that is changed keeps what it was before, to go back to, and no
// more than that.
func TestOneIsKeptToGoBackTo(t *testing.T) {
	files := newFiles(t)
	s := sets.Open(files)
	for _, v := range []string{one, two, three} {
		put(t, files, sets.Path("incus", v))
		must(t, s.Coming(one, sets.Set{"incus": v}))
		must(t, s.Runs(one, sets.Set{"incus": v}))
		must(t, s.Prune())
	}
	if got, want := images(t, files), []string{two + "/incus.raw", three + "/incus.raw"}; !slices.Equal(got, want) {
		t.Errorf("stored are %q, want %q", got, want)
	}
	of, err := s.Of(one)
	must(t, err)
	if diff := cmp.Diff(sets.System{Now: sets.Set{"incus": three}, Before: sets.Set{"incus": two}}, of); diff != "" {
		t.Errorf("written down is (-want +got):\n%s", diff)
	}
}

func TestWhatDidNotWorkIsRemembered(t *testing.T) {
	files := newFiles(t)
	put(t, files, sets.Path("incus", one), sets.Path("incus", two))
	s := sets.Open(files)
	must(t, s.Runs(one, sets.Set{"incus": one}))
	must(t, s.Coming(one, sets.Set{"incus": two}))
	must(t, s.Refuse(one, sets.Set{"incus": two}))
	must(t, s.Prune())
	of, _ := s.Of(one)
	if of.Refused["incus"] != two || of.Next != nil || files.Exists(sets.Path("incus", two)) {
		t.Errorf("written down is %+v, stored are %q", of, images(t, files))
	}
	must(t, s.Runs(one, sets.Set{"incus": two})) // a person has it run
	if of, _ = s.Of(one); of.Refused != nil {
		t.Errorf("%v is still refused", of.Refused)
	}
}

// An application that is added has one image, whichever slot runs; one that is
// removed is in no set.
func TestAddedAndRemovedInBothSlots(t *testing.T) {
	s := sets.Open(newFiles(t))
	must(t, s.Runs(one, sets.Set{"incus": one}))
	must(t, s.Stage(one, two, sets.Set{"incus": two}))
	must(t, s.Runs(one, sets.Set{"incus": one, "ovn": one}))
	if of, _ := s.Of(two); !maps.Equal(of.Now, sets.Set{"incus": two, "ovn": one}) {
		t.Errorf("the version beside the one that runs has %v, want ovn too", of.Now)
	}
	must(t, s.Forget("ovn"))
	all, err := s.Get()
	must(t, err)
	if all.Systems[one].Now["ovn"] != "" || all.Systems[two].Now["ovn"] != "" || len(all.Gone) > 0 {
		t.Errorf("written down is %+v, want no ovn", all)
	}
}

// A link still leads to what no set needs: it stays until it does not.
func TestActiveImageStays(t *testing.T) {
	files := newFiles(t)
	put(t, files, sets.Path("incus", one))
	must(t, sets.Activate(files, "incus", one))
	s := sets.Open(files)
	must(t, s.Runs(one, sets.Set{"incus": one}))
	must(t, s.Runs(two, sets.Set{"incus": two}))
	must(t, s.Stage(two, three, sets.Set{"incus": three}))
	must(t, s.Prune())
	if !files.Exists(sets.Path("incus", one)) {
		t.Fatal("the image that is active was removed")
	}
	must(t, sets.Deactivate(files, "incus"))
	must(t, s.Prune())
	if files.Exists(sets.Path("incus", one)) {
		t.Error("the image is still there")
	}
}

func TestPoint(t *testing.T) {
	files := newFiles(t)
	put(t, files, sets.Path("incus", one), sets.Path("incus", two), sets.Path("debug", one), sets.Path("ovn", one))
	for _, name := range []string{"incus", "debug", "ovn"} {
		must(t, sets.Activate(files, name, one))
	}
	missing, err := sets.Point(files, sets.Set{"incus": two, "ovn": three})
	must(t, err)
	if diff := cmp.Diff([]sets.Image{{Name: "ovn", Version: three}}, missing); diff != "" {
		t.Errorf("missing are (-want +got):\n%s", diff)
	}
	active, err := sets.Active(files)
	must(t, err)
	if diff := cmp.Diff(sets.Set{"incus": two, "ovn": one}, active); diff != "" {
		t.Errorf("active are (-want +got):\n%s", diff)
	}
	if link, _ := files.Readlink(sets.Links + "/incus.raw"); link != "../incus-os-extensions/"+two+"/incus.raw" {
		t.Errorf("the link is %q; the initrd follows it from below /sysroot", link)
	}
}

func TestDamagedDocuments(t *testing.T) {
	for content, says := range map[string]string{
		`{"schema":1,"config":{`: "unexpected end",
		`{"schema":1,"config":{"systems":{"` + one + `":{"now":{"incus":"../x"}}}}}`:     `"../x" of application "incus" is no version`,
		`{"schema":1,"config":{"systems":{"` + one + `":{"before":{"../../etc":"1"}}}}}`: `"../../etc" is no application name`,
		`{"schema":1,"config":{"gone":[{"name":"incus","version":".."}]}}`:               `".." of application "incus" is no version`,
		`{"schema":1,"config":{"systems":{"` + one + `":{"next":{"incus":"1/2"}}}}}`:     `"1/2" of application "incus" is no version`,
		`{"schema":1,"config":{"systems":["` + one + `"]}}`:                              "systems",
	} {
		files := newFiles(t)
		must(t, files.WriteFile(file, []byte(content), 0o600))
		s := sets.Open(files)
		_, err := s.Of(one)
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "which applications belong to which version") {
			t.Errorf("%s: %v, want %q", content, err, says)
		}
		if err := s.Runs(one, sets.Set{"incus": one}); err == nil {
			t.Errorf("%s: it was written over", content)
		}
		if err := s.Prune(); err == nil {
			t.Errorf("%s: images were removed without knowing which", content)
		}
	}
}

// Whatever happens in whichever order: what a set needs is never gone, what was
// needed and is not is, and a document comes back as it was saved.
func TestNothingThatIsNeededIsGone(t *testing.T) {
	version := rapid.SampledFrom([]string{one, two, three})
	set := rapid.MapOf(rapid.SampledFrom([]string{"incus", "ovn"}), version)
	rapid.Check(t, func(t *rapid.T) {
		var s sets.Saved
		known := make(map[sets.Image]bool)
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			switch v, with := version.Draw(t, "version"), set.Draw(t, "set"); rapid.IntRange(0, 4).Draw(t, "step") {
			case 0:
				s = s.Staged(v, version.Draw(t, "new"), with)
			case 1:
				s = s.Coming(v, with)
			case 2:
				s = s.Runs(v, with)
				if !maps.Equal(s.Systems[v].Now, with) {
					t.Fatalf("it runs with %v and %v is written down", with, s.Systems[v].Now)
				}
			case 3:
				s = s.Refuses(v, with)
			case 4:
				s = s.Without("ovn")
				maps.DeleteFunc(known, func(i sets.Image, _ bool) bool { return i.Name == "ovn" })
			}
			needed := make(map[sets.Image]bool)
			for _, system := range s.Systems {
				for _, set := range []sets.Set{system.Now, system.Before, system.Next} {
					for name, version := range set {
						needed[sets.Image{Name: name, Version: version}] = true
					}
				}
			}
			maps.Copy(known, needed)
			for i := range known {
				if slices.Contains(s.Gone, i) == needed[i] {
					t.Fatalf("%v is needed: %t, and gone are %v", i, needed[i], s.Gone)
				}
			}
		}
	})
}
