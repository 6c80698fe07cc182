package repo_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/incusos/incusos/internal/repo"
)

func start() time.Time { return time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC) }

const day = 24 * time.Hour

// A server is a repository as somebody serves it.
type server map[string][]byte

func (s server) fetch(_ context.Context, name string, limit int64) ([]byte, error) {
	b, ok := s[name]
	if !ok {
		return nil, repo.ErrNotFound
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", name, limit)
	}
	return b, nil
}

// A publisher has a repository and keys.
type publisher struct {
	t      testing.TB
	server server
	author *repo.Author
	keys   []crypto.Signer // all of them
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func roleKeys(threshold int, keys ...crypto.Signer) repo.RoleKeys {
	r := repo.RoleKeys{Threshold: threshold}
	for _, k := range keys {
		r.Keys = append(r.Keys, k.Public())
	}
	return r
}

// newPublisher makes a repository with one key for everything.
func newPublisher(t testing.TB) *publisher {
	t.Helper()
	key := newKey(t)
	return newPublisherWith(t, map[string]repo.RoleKeys{
		"root": roleKeys(1, key), "targets": roleKeys(1, key), "snapshot": roleKeys(1, key), "timestamp": roleKeys(1, key),
	}, key)
}

func newPublisherWith(t testing.TB, roles map[string]repo.RoleKeys, keys ...crypto.Signer) *publisher {
	t.Helper()
	author, err := repo.Create(roles)
	if err != nil {
		t.Fatal(err)
	}
	p := &publisher{t, make(server), author, keys}
	p.sign(start())
	return p
}

// sign signs with all keys and uploads.
func (p *publisher) sign(at time.Time) {
	p.t.Helper()
	files, err := p.author.Sign(p.keys, at, repo.DefaultValidity())
	if err != nil {
		p.t.Fatal(err)
	}
	for _, f := range files {
		p.server[f.Name] = f.Data
	}
}

// publish publishes a small release.
func (p *publisher) publish(at time.Time, version string, channels ...string) {
	p.t.Helper()
	if err := p.author.Add(release(version, channels...)); err != nil {
		p.t.Fatal(err)
	}
	p.sign(at)
}

func release(version string, channels ...string) repo.Release {
	file := func(name, kind, component, arch string) repo.File {
		return repo.File{
			Path: version + "/" + name, Length: 100, SHA256: sha256.Sum256([]byte(version + name)),
			Kind: kind, Component: component, Architecture: arch,
		}
	}
	r := repo.Release{
		Version: version, Published: start(), Origin: "example.net", Severity: "low", Channels: make(map[string]repo.Phase),
		Changelog: file("changelog.md", repo.KindChangelog, "os", ""),
		Files: []repo.File{
			file("x86_64/incus.raw", repo.KindApp, "incus", "x86_64"),
			file("x86_64/os/usr.raw", repo.KindUsr, "os", "x86_64"),
			file("x86_64/os/usr.tree", repo.KindTree, "os", "x86_64"),
		},
	}
	r.Files[1].Tree, r.Files[1].RootHash = r.Files[2].Path, strings.Repeat("ab", 32)
	for _, c := range channels {
		r.Channels[c] = repo.Phase{Percent: 100}
	}
	return r
}

// machine returns what a machine trusts whose image was made now.
func (p *publisher) machine() repo.Trusted {
	p.t.Helper()
	root, err := p.author.Root()
	if err != nil {
		p.t.Fatal(err)
	}
	return repo.Trusted{Root: root}
}

// at is a clock that is right.
func at(now time.Time) repo.Clock {
	return repo.Clock{Now: now, Synchronized: true, NotBefore: start()}
}

func mustRefresh(t testing.TB, trusted repo.Trusted, now time.Time, s server) (repo.Trusted, *repo.Catalog) {
	t.Helper()
	trusted, c, err := repo.Refresh(t.Context(), trusted, at(now), s.fetch)
	if err != nil {
		t.Fatal(err)
	}
	return trusted, c
}

func versions(c *repo.Catalog) string {
	var all []string
	for _, r := range c.Releases {
		all = append(all, r.Version)
	}
	return strings.Join(all, " ")
}

func TestMachineSeesWhatIsPublished(t *testing.T) {
	p := newPublisher(t)
	m := p.machine()
	m, c := mustRefresh(t, m, start(), p.server)
	if len(c.Releases) != 0 {
		t.Errorf("a new repository has %d releases", len(c.Releases))
	}
	p.publish(start().Add(time.Hour), "202611271200", "testing")
	p.publish(start().Add(time.Hour), "202611281200", "stable", "testing")
	_, c = mustRefresh(t, m, start().Add(day), p.server)
	if got := versions(c); got != "202611281200 202611271200" || len(c.Problems) > 0 {
		t.Errorf("releases are %s %v", got, c.Problems)
	}
	if want := start().Add(time.Hour); !c.Signed.Equal(want) || !c.Expires.Equal(want.Add(30*day)) || c.Unproven {
		t.Errorf("signed %v, expires %v, unproven %v", c.Signed, c.Expires, c.Unproven)
	}
	got, want := c.Releases[0], release("202611281200", "stable", "testing")
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("release is\n%+v\nwant\n%+v", got, want)
	}
	if name := got.Files[0].Name(); name != fmt.Sprintf("targets/202611281200/x86_64/%x.incus.raw", want.Files[0].SHA256) {
		t.Errorf("its file is called %s", name)
	}
}

// Without news a check is one small file, and the next root that is not there.
func TestCheckWithoutNewsIsSmall(t *testing.T) {
	p := newPublisher(t)
	p.publish(start(), "202611271200", "stable")
	m, _ := mustRefresh(t, p.machine(), start(), p.server)
	p.sign(start().Add(day))
	var asked []string
	_, _, err := repo.Refresh(t.Context(), m, at(start().Add(day)), func(ctx context.Context, name string, limit int64) ([]byte, error) {
		asked = append(asked, name)
		return p.server.fetch(ctx, name, limit)
	})
	if want := "[metadata/2.root.json metadata/timestamp.json]"; err != nil || fmt.Sprint(asked) != want {
		t.Errorf("asked for %v (%v), want %s", asked, err, want)
	}
}

// A machine that was off for years follows the keys one after the other, although
// those on the way have expired and sign nothing any more.
func TestMachineMissedManyChangesOfKeys(t *testing.T) {
	p := newPublisher(t)
	m := p.machine()
	first := p.keys[0]
	for i := range 12 {
		key := newKey(t)
		all := roleKeys(1, key)
		if err := p.author.SetKeys(map[string]repo.RoleKeys{"root": all, "targets": all, "snapshot": all, "timestamp": all}); err != nil {
			t.Fatal(err)
		}
		p.keys = append(p.keys, key)
		p.sign(start().Add(time.Duration(i+1) * 2 * 365 * day))
		p.keys = []crypto.Signer{key}
	}
	now := start().Add(24*365*day + time.Hour)
	p.publish(now, "205011271200", "stable")
	m, c := mustRefresh(t, m, now, p.server)
	if versions(c) != "205011271200" {
		t.Errorf("releases are %s", versions(c))
	}
	if v, _, err := repo.RootVersion(m.Root); v != 13 || err != nil {
		t.Errorf("root is version %d (%v), want 13", v, err)
	}

	p.keys = []crypto.Signer{first}
	if _, err := p.author.Sign(p.keys, now, repo.DefaultValidity()); err == nil || !strings.Contains(err.Error(), "none of the keys given may sign timestamp; want 1 of 1 others") {
		t.Errorf("the first key can still sign: %v", err)
	}
	delete(p.server, "metadata/5.root.json")
	if _, _, err := repo.Refresh(t.Context(), newMachine(t, p), at(now), p.server.fetch); err == nil {
		t.Error("a root was left out and the rest accepted")
	}
}

// newMachine is one whose image was made when the repository was.
func newMachine(t testing.TB, p *publisher) repo.Trusted {
	t.Helper()
	return repo.Trusted{Root: p.server["metadata/1.root.json"]}
}

func TestThresholds(t *testing.T) {
	a, b, c, online := newKey(t), newKey(t), newKey(t), newKey(t)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	roles := map[string]repo.RoleKeys{
		"root": roleKeys(2, a, b, c), "targets": roleKeys(2, a, ec), "snapshot": roleKeys(1, online), "timestamp": roleKeys(1, online),
	}
	p := newPublisherWith(t, roles, a, c, ec, online)
	m := p.machine()
	if err := p.author.Add(release("202611271200", "stable")); err != nil {
		t.Fatal(err)
	}
	for want, keys := range map[string][]crypto.Signer{
		"targets needs the signatures of 2 keys, and 1 of those given may sign it": {a, online},
		"none of the keys given may sign targets; want 2 of 2 others":              {online},
		"none of the keys given may sign snapshot; want 1 of 1 others":             {a, ec},
	} {
		if _, err := p.author.Sign(keys, start(), repo.DefaultValidity()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Sign said %v, want %q", err, want)
		}
	}
	p.sign(start())
	mustRefresh(t, m, start(), p.server)

	// Somebody takes one of two signatures away, or writes one twice.
	name := "metadata/2.targets.json"
	m1, err := metadata.Targets().FromBytes(p.server[name])
	if err != nil || len(m1.Signatures) != 2 {
		t.Fatalf("%v %v", m1, err)
	}
	for _, sigs := range [][]metadata.Signature{m1.Signatures[:1], {m1.Signatures[0], m1.Signatures[0]}, nil} {
		s := maps.Clone(p.server)
		forged := *m1
		forged.Signatures = sigs
		s[name], _ = forged.ToBytes(false)
		if _, _, err := repo.Refresh(t.Context(), m, at(start()), s.fetch); err == nil {
			t.Errorf("%d signatures are enough", len(sigs))
		}
	}
}

// What a server, or somebody on the way, can do: each is refused, and what the
// machine had stays.
func TestHostileServers(t *testing.T) {
	p := newPublisher(t)
	p.publish(start(), "202611271200", "stable")
	old := maps.Clone(p.server)
	p.publish(start().Add(day), "202611281200", "stable")
	m, _ := mustRefresh(t, p.machine(), start().Add(day), p.server)
	p.publish(start().Add(2*day), "202611291200", "stable")

	thief := newPublisher(t)
	thief.publish(start(), "202611271200", "stable")
	thief.publish(start(), "203011291200", "stable")
	thief.publish(start(), "203011301200", "stable")
	thief.publish(start(), "203012011200", "stable")

	with := func(base server, files map[string][]byte) server {
		s := maps.Clone(base)
		maps.Copy(s, files)
		return s
	}
	tests := map[string]struct {
		server server
		later  time.Duration
		want   string
	}{
		"rollback":                   {old, 0, "metadata/timestamp.json cannot be accepted: "},
		"freeze":                     {p.server, 33 * day, "has expired: the repository is no longer looked after, or somebody holds back a newer one"},
		"frozen at what it has":      {with(p.server, map[string][]byte{"metadata/timestamp.json": m.Timestamp}), 33 * day, "has expired"},
		"another repository":         {thief.server, 0, "metadata/timestamp.json cannot be accepted: "},
		"another timestamp":          {with(p.server, map[string][]byte{"metadata/timestamp.json": thief.server["metadata/timestamp.json"]}), 0, "timestamp.json cannot be accepted"},
		"mixed: old snapshot":        {with(p.server, map[string][]byte{"metadata/4.snapshot.json": p.server["metadata/3.snapshot.json"]}), 0, "metadata/4.snapshot.json cannot be accepted"},
		"mixed: old targets":         {with(p.server, map[string][]byte{"metadata/4.targets.json": p.server["metadata/3.targets.json"]}), 0, "metadata/4.targets.json cannot be accepted"},
		"mixed: another's targets":   {with(p.server, map[string][]byte{"metadata/4.targets.json": thief.server["metadata/4.targets.json"]}), 0, "metadata/4.targets.json cannot be accepted"},
		"another root":               {with(p.server, map[string][]byte{"metadata/2.root.json": thief.server["metadata/1.root.json"]}), 0, "metadata/2.root.json cannot be accepted"},
		"the first root again":       {with(p.server, map[string][]byte{"metadata/2.root.json": p.server["metadata/1.root.json"]}), 0, "metadata/2.root.json cannot be accepted"},
		"endless timestamp":          {with(p.server, map[string][]byte{"metadata/timestamp.json": make([]byte, 1<<20)}), 0, "metadata/timestamp.json has more than 16384 bytes"},
		"endless targets":            {with(p.server, map[string][]byte{"metadata/4.targets.json": append(bytes.Clone(p.server["metadata/4.targets.json"]), ' ')}), 0, "metadata/4.targets.json has more than"},
		"short targets":              {with(p.server, map[string][]byte{"metadata/4.targets.json": p.server["metadata/4.targets.json"][:500]}), 0, "metadata/4.targets.json cannot be accepted"},
		"a snapshot for a timestamp": {with(p.server, map[string][]byte{"metadata/timestamp.json": p.server["metadata/4.snapshot.json"]}), 0, "metadata/timestamp.json cannot be accepted"},
		"nothing":                    {server{}, 0, "the repository has no such file"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			after, c, err := repo.Refresh(t.Context(), m, at(start().Add(2*day+tt.later)), tt.server.fetch)
			if err == nil || !strings.Contains(err.Error(), tt.want) || c != nil {
				t.Errorf("Refresh said %v, want %q", err, tt.want)
			}
			if _, c := mustRefresh(t, after, start().Add(2*day), p.server); versions(c) != "202611291200 202611281200 202611271200" {
				t.Errorf("after that releases are %s", versions(c))
			}
		})
	}
}

// Whatever bytes of whatever file are changed, a machine takes nothing that was not
// signed.
func TestAnyChangeOfAnyFileIsNoticed(t *testing.T) {
	p := newPublisher(t)
	p.publish(start(), "202611271200", "stable")
	names := slices.Sorted(maps.Keys(p.server))
	r := mathrand.New(mathrand.NewPCG(1, 2)) //nolint:gosec // a test
	for range 400 {
		s := maps.Clone(p.server)
		name := names[r.IntN(len(names))]
		b := bytes.Clone(s[name])
		b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		s[name] = b
		_, c, err := repo.Refresh(t.Context(), newMachine(t, p), at(start()), s.fetch)
		if err == nil && fmt.Sprintf("%+v", c.Releases) != fmt.Sprintf("%+v", p.author.Releases) {
			t.Errorf("%s was changed and accepted", name)
		}
	}
}

// A thief of the online key signs versions so high that the owner could never
// reach them. Changing the key ends that.
func TestChangeOfKeysEndsAFastForward(t *testing.T) {
	key, online := newKey(t), newKey(t)
	p := newPublisherWith(t, map[string]repo.RoleKeys{
		"root": roleKeys(1, key), "targets": roleKeys(1, key), "snapshot": roleKeys(1, online), "timestamp": roleKeys(1, online),
	}, key, online)
	thief, err := repo.Open(t.Context(), p.server.fetch)
	if err != nil {
		t.Fatal(err)
	}
	stolen := maps.Clone(p.server)
	for range 50 {
		files, err := thief.Sign([]crypto.Signer{online}, start().Add(100*day), repo.DefaultValidity())
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			stolen[f.Name] = f.Data
		}
	}
	m, _ := mustRefresh(t, p.machine(), start().Add(100*day), stolen)

	fresh := newKey(t)
	if err := p.author.SetKeys(map[string]repo.RoleKeys{"snapshot": roleKeys(1, fresh), "timestamp": roleKeys(1, fresh)}); err != nil {
		t.Fatal(err)
	}
	p.keys = []crypto.Signer{key, fresh}
	p.publish(start().Add(day), "202611281200", "stable")
	if _, c := mustRefresh(t, m, start().Add(2*day), p.server); versions(c) != "202611281200" {
		t.Errorf("releases are %s", versions(c))
	}
}

func TestClocks(t *testing.T) {
	p := newPublisher(t)
	signed := start().Add(100 * day) // expires 30 days later
	p.sign(signed)
	m, _ := mustRefresh(t, p.machine(), signed, p.server)
	fresh := repo.Trusted{Root: m.Root}
	years := 365 * day
	tests := map[string]struct {
		trusted repo.Trusted
		clock   repo.Clock
		want    string
	}{
		"right":                                    {fresh, repo.Clock{Now: signed.Add(day), Synchronized: true, NotBefore: start()}, "fresh"},
		"right, expired":                           {fresh, repo.Clock{Now: signed.Add(31 * day), Synchronized: true, NotBefore: start()}, "expired"},
		"slow, nothing is certain":                 {fresh, repo.Clock{Now: time.Unix(0, 0), NotBefore: start()}, "fresh"},
		"slow, the image is younger":               {fresh, repo.Clock{Now: time.Unix(0, 0), NotBefore: signed.Add(31 * day)}, "expired"},
		"slow, a time server says so":              {fresh, repo.Clock{Now: time.Unix(0, 0), Synchronized: true, NotBefore: signed.Add(31 * day)}, "expired"},
		"fast":                                     {fresh, repo.Clock{Now: signed.Add(10 * years), NotBefore: start()}, "unproven"},
		"fast, and was right before":               {m, repo.Clock{Now: signed.Add(10 * years), NotBefore: start()}, "unproven"},
		"fast, a time server says so":              {m, repo.Clock{Now: signed.Add(10 * years), Synchronized: true, NotBefore: start()}, "expired"},
		"fast, the image is younger":               {fresh, repo.Clock{Now: signed.Add(10 * years), NotBefore: signed.Add(31 * day)}, "expired"},
		"slow, and saw a newer one":                {m, repo.Clock{Now: start(), NotBefore: start()}, "fresh"},
		"right but nobody set it, not expired":     {fresh, repo.Clock{Now: signed.Add(day), NotBefore: start()}, "fresh"},
		"beyond the root, nobody set it (battery)": {fresh, repo.Clock{Now: signed.Add(30 * years), NotBefore: start()}, "unproven"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, c, err := repo.Refresh(t.Context(), tt.trusted, tt.clock, p.server.fetch)
			got := "fresh"
			switch {
			case repo.IsExpired(err):
				got = "expired"
			case err != nil:
				t.Fatal(err)
			case c.Unproven:
				got = "unproven"
			}
			if got != tt.want {
				t.Errorf("it is %s, want %s", got, tt.want)
			}
		})
	}
}

// A machine whose clock is slow does not take what expired before it saw the newest.
func TestSlowClockIsNotFooled(t *testing.T) {
	p := newPublisher(t)
	old := maps.Clone(p.server)
	p.sign(start().Add(100 * day))
	m, _ := mustRefresh(t, p.machine(), start().Add(100*day), p.server)
	old["metadata/timestamp.json"] = m.Timestamp // frozen at the newest that it has
	p.sign(start().Add(200 * day))
	m2, _ := mustRefresh(t, m, start().Add(200*day), p.server)
	_, _, err := repo.Refresh(t.Context(), m2, repo.Clock{Now: time.Unix(0, 0), NotBefore: start()}, old.fetch)
	if err == nil {
		t.Error("an old timestamp is accepted by a slow clock")
	}
}

func TestRefreshKeepsWhatItVerified(t *testing.T) {
	p := newPublisher(t)
	m := p.machine()
	if err := p.author.SetKeys(map[string]repo.RoleKeys{"timestamp": roleKeys(1, newKey(t), p.keys[0])}); err != nil {
		t.Fatal(err)
	}
	p.sign(start())
	broken := maps.Clone(p.server)
	delete(broken, "metadata/timestamp.json")
	after, _, err := repo.Refresh(t.Context(), m, at(start()), broken.fetch)
	if !errors.Is(err, repo.ErrNotFound) {
		t.Errorf("Refresh said %v", err)
	}
	if v, _, _ := repo.RootVersion(after.Root); v != 2 {
		t.Errorf("root is version %d, want 2", v)
	}
}

// Bytes from outside, in place of each file in turn.
func FuzzRefresh(f *testing.F) {
	p := newPublisher(f)
	p.publish(start(), "202611271200", "stable")
	names := []string{"metadata/2.root.json", "metadata/timestamp.json", "metadata/2.snapshot.json", "metadata/2.targets.json"}
	for i := range names {
		f.Add(uint8(i), p.server[names[i]])
		f.Add(uint8(i), []byte(`{"signed":{"_type":"timestamp","meta":{}},"signatures":[]}`))
	}
	f.Add(uint8(0), p.server["metadata/1.root.json"])
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		s := maps.Clone(p.server)
		s[names[int(which)%len(names)]] = b
		_, c, err := repo.Refresh(t.Context(), newMachine(t, p), at(start()), s.fetch)
		if err == nil && versions(c) != "202611271200" {
			t.Errorf("accepted %s", versions(c))
		}
	})
}
