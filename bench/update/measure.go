package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/incusos/incusos/internal/fetch"
	"github.com/incusos/incusos/internal/repo"
	"github.com/incusos/incusos/internal/update"
	"github.com/incusos/incusos/internal/verity"
)

// measure makes a new image in a file, on a machine that has the old one, from a
// server that has the new one.
func measure(ctx context.Context, c change, o options) (result, error) {
	tree, err := verity.Build(ctx, verity.Superblock{Blocks: verity.BlocksOf(int64(len(c.new))), Salt: []byte("of the new one")}, bytes.NewReader(c.new))
	if err != nil {
		return result{}, err
	}
	index := tree.Index().Compact()
	const version = "202611271200"
	image := repo.File{Path: version + "/image", Length: int64(len(c.new)), SHA256: sha256.Sum256(c.new), RootHash: tree.Root.String(), Index: version + "/index"}
	release := repo.Release{Version: version, Files: []repo.File{image, {Path: version + "/index", Length: int64(len(index)), SHA256: sha256.Sum256(index)}}}
	web := httptest.NewServer(server(o.rate*1e6, map[string][]byte{image.Name(): c.new, release.Files[1].Name(): index}))
	defer web.Close()
	from, err := fetch.Open(web.URL, fetch.Options{})
	if err != nil {
		return result{}, err
	}
	out, err := os.CreateTemp("", "bench-update-")
	if err != nil {
		return result{}, err
	}
	defer os.Remove(out.Name()) //nolint:errcheck // a temporary file
	defer out.Close()           //nolint:errcheck // a temporary file
	if err := out.Truncate(image.Length); err != nil {
		return result{}, err
	}
	old := []verity.Source{verity.Zeros(), {ReaderAt: bytes.NewReader(c.old), Size: int64(len(c.old))}}
	if c.name == kernel {
		old = append(old[:1], update.Shifted(c.old)...)
	}
	d := update.Download{Server: from, Release: release, Tally: new(fetch.Tally)}
	before := written()
	began := time.Now()
	if _, err := d.Make(ctx, image, out, old); err != nil {
		return result{}, err
	}
	r := result{fetched: d.Tally.Bytes.Load(), written: written() - before, requests: d.Tally.Requests.Load(), took: time.Since(began)}
	r.least, err = copied(c.new)
	if o.rate > 0 {
		r.least = max(r.least, time.Duration(float64(r.fetched)/float64(o.rate*1e6)*float64(time.Second)))
	}
	return r, err
}

// copied returns how long the disk takes to be given an image that somebody has in
// memory, and to have it: an update cannot take less.
func copied(image []byte) (time.Duration, error) {
	f, err := os.CreateTemp("", "bench-update-")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // a temporary file
	defer f.Close()           //nolint:errcheck // a temporary file
	began := time.Now()
	if _, err := f.Write(image); err != nil {
		return 0, err
	}
	err = f.Sync()
	return time.Since(began), err
}

// written returns how many bytes this process has given to the kernel to write to
// files (proc(5), /proc/PID/io: wchar counts sockets too, write_bytes what is for
// disks; a temporary directory in memory shows none).
func written() int64 {
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(line, "write_bytes: "); ok {
			var sum int64
			for _, c := range strings.TrimSpace(n) {
				sum = sum*10 + int64(c-'0')
			}
			return sum
		}
	}
	return 0
}

// server serves files over a link of rate bytes a second; 0 is no limit.
func server(rate int64, files map[string][]byte) http.Handler {
	l := &link{rate: rate, free: time.Now()}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, ok := files[strings.TrimPrefix(r.URL.Path, "/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(&throttled{w, l}, r, "", time.Time{}, bytes.NewReader(b))
	})
}

// A link is shared by all requests.
type link struct {
	rate int64
	mu   sync.Mutex
	free time.Time // when it has carried what it was given
	sent atomic.Int64
}

// carry waits until n bytes have gone over the link.
func (l *link) carry(n int) {
	l.sent.Add(int64(n))
	if l.rate == 0 {
		return
	}
	l.mu.Lock()
	if now := time.Now(); l.free.Before(now) {
		l.free = now
	}
	l.free = l.free.Add(time.Duration(n) * time.Second / time.Duration(l.rate))
	until := l.free
	l.mu.Unlock()
	time.Sleep(time.Until(until))
}

type throttled struct {
	http.ResponseWriter
	link *link
}

func (t *throttled) Write(p []byte) (int, error) {
	t.link.carry(len(p))
	return t.ResponseWriter.Write(p)
}
