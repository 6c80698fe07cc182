package fetch_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/incusos/incusos/internal/fetch"
	"github.com/incusos/incusos/internal/repo"
	"github.com/incusos/incusos/internal/verity"
)

// A site serves one image, and may be bent to do it badly.
type site struct {
	image []byte
	file  repo.File
	bend  func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc)
	asked atomic.Int64
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.asked.Add(1)
	serve := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/base/"+s.file.Name() {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.image))
	}
	if s.bend != nil {
		s.bend(w, r, serve)
		return
	}
	serve(w, r)
}

func newSite(blocks, short int) *site {
	image := make([]byte, blocks*verity.BlockSize-short)
	rand.NewChaCha8([32]byte{3}).Read(image) //nolint:errcheck // never fails
	return &site{image: image, file: repo.File{Path: "202611271200/x86_64/os/usr.raw", Length: int64(len(image)), SHA256: sha256.Sum256(image)}}
}

// open starts the site, and returns a way to it that is quick to lose patience.
func open(t testing.TB, h http.Handler) *fetch.Server {
	t.Helper()
	web := httptest.NewServer(h)
	t.Cleanup(web.Close)
	s, err := fetch.Open(web.URL+"/base", fetch.Options{Patience: time.Second, Backoff: time.Millisecond, Attempts: 4})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func index(t testing.TB, image []byte) *verity.Index {
	t.Helper()
	tree, err := verity.Build(t.Context(), verity.Superblock{Blocks: verity.BlocksOf(int64(len(image))), Salt: []byte("salt")}, bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	return tree.Index()
}

// A slot is where an image is written.
type slot struct {
	mu   sync.Mutex
	data []byte
	fail error
}

func (s *slot) ReadAt(p []byte, at int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.NewReader(s.data).ReadAt(p, at)
}

func (s *slot) WriteAt(p []byte, at int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return 0, s.fail
	}
	return copy(s.data[at:], p), nil
}

func (s *slot) target() verity.Target {
	return verity.Target{ReaderAt: s, WriterAt: s, Size: int64(len(s.data))}
}

// update makes the slot the image of the site, as a machine does.
func update(ctx context.Context, s *fetch.Server, w *site, x *verity.Index, to *slot) (*fetch.Tally, error) {
	p, err := verity.MakePlan(ctx, x, to.target(), nil)
	if err != nil {
		return nil, err
	}
	tally := new(fetch.Tally)
	return tally, s.Blocks(ctx, w.file, x, to.target(), p.Missing, tally)
}

func TestBlocksFetchesWhatIsMissing(t *testing.T) {
	w := newSite(6000, 100)
	x := index(t, w.image)
	to := &slot{data: bytes.Clone(w.image)}
	changed := []int{0, 1, 40, 2000, 2001, 4000, 5999}
	for _, b := range changed {
		clear(to.data[b*verity.BlockSize:][:50])
	}
	tally, err := update(t.Context(), open(t, w), w, x, to)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(to.data, w.image) {
		t.Error("the slot is not the image")
	}
	if n, most := tally.Bytes.Load(), int64((len(changed)+gapBlocks)*verity.BlockSize); n > most || tally.Requests.Load() != 5 {
		t.Errorf("it took %d bytes in %d requests, want at most %d in 5", n, tally.Requests.Load(), most)
	}
}

// gapBlocks is how many blocks too many the test above may fetch.
const gapBlocks = 16

func TestBlocksFetchesAll(t *testing.T) {
	w := newSite(5000, 0)
	to := &slot{data: make([]byte, len(w.image))}
	tally, err := update(t.Context(), open(t, w), w, index(t, w.image), to)
	if err != nil || !bytes.Equal(to.data, w.image) {
		t.Fatalf("the slot is not the image (%v)", err)
	}
	if tally.Bytes.Load() != int64(len(w.image)) || tally.Requests.Load() != 5 {
		t.Errorf("it took %d bytes in %d requests", tally.Bytes.Load(), tally.Requests.Load())
	}
}

// cutting lets through so many bytes of an answer and then cuts the connection.
type cutting struct {
	http.ResponseWriter
	left int
}

func (c *cutting) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p[:min(len(p), c.left)])
	if c.left -= n; c.left == 0 {
		c.ResponseWriter.(http.Flusher).Flush() //nolint:forcetypeassert // it is one
		panic(http.ErrAbortHandler)
	}
	return n, err
}

func TestBlocksGoesOnAfterCuts(t *testing.T) {
	w := newSite(4000, 7)
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a test
	w.bend = func(rw http.ResponseWriter, req *http.Request, serve http.HandlerFunc) {
		mu.Lock()
		n := 1 + r.IntN(3<<20)
		mu.Unlock()
		serve(&cutting{rw, n}, req)
	}
	s := open(t, w)
	x := index(t, w.image)
	to := &slot{data: make([]byte, len(w.image))}
	total := int64(0)
	for range 20 {
		tally, err := update(t.Context(), s, w, x, to)
		total += tally.Bytes.Load()
		if err == nil {
			break
		}
		t.Log(err)
	}
	if !bytes.Equal(to.data, w.image) {
		t.Error("the slot is not the image")
	}
	if most := int64(len(w.image)) * 5 / 4; total > most {
		t.Errorf("with all cuts it took %d bytes, want at most %d", total, most)
	}
}

func TestHostileServers(t *testing.T) {
	w := newSite(600, 0)
	x := index(t, w.image)
	answer := func(code int, header, value string, body []byte) func(http.ResponseWriter, *http.Request, http.HandlerFunc) {
		return func(rw http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
			rw.Header().Set(header, value)
			rw.WriteHeader(code)
			rw.Write(body) //nolint:errcheck // a test
		}
	}
	forged := bytes.Clone(w.image)
	forged[300*verity.BlockSize] ^= 1
	tests := map[string]struct {
		bend func(http.ResponseWriter, *http.Request, http.HandlerFunc)
		want string
	}{
		"not there":       {answer(404, "X", "", nil), "the repository has no such file"},
		"no token":        {answer(401, "X", "", nil), "the server refuses: 401 Unauthorized; it may want a token"},
		"broken":          {answer(500, "X", "", nil), "the server answers 500 Internal Server Error"},
		"no ranges":       {answer(200, "X", "", make([]byte, 10<<20)), "the server does not answer range requests; use one that does"},
		"short":           {answer(416, "X", "", nil), "the file is shorter than it should be"},
		"another range":   {answer(206, "Content-Range", "bytes 4096-8191/2457600", w.image), "the server sends \"bytes 4096-8191/2457600\"; want \"bytes 0-2457599/\""},
		"no range at all": {answer(206, "X", "", w.image), "the server sends \"\"; want \"bytes 0-2457599/\""},
		"truncated":       {answer(206, "Content-Range", "bytes 0-2457599/2457600", nil), "EOF"},
		"forged": {func(rw http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
			http.ServeContent(rw, r, "", time.Time{}, bytes.NewReader(forged))
		}, "block 300: what the server sends is damaged or forged"},
		"silent": {func(_ http.ResponseWriter, r *http.Request, _ http.HandlerFunc) { <-r.Context().Done() }, "the server is too slow: less than 8 KiB a second"},
		"redirected for ever": {func(rw http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
			http.Redirect(rw, r, r.URL.Path+"x", http.StatusFound)
		}, "stopped after 10 redirects"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hostile := &site{image: w.image, file: w.file, bend: tt.bend}
			web := httptest.NewServer(hostile)
			defer web.Close()
			s, err := fetch.Open(web.URL+"/base", fetch.Options{Patience: 200 * time.Millisecond, Backoff: time.Millisecond, Attempts: 2})
			if err != nil {
				t.Fatal(err)
			}
			if name == "silent" {
				_, err = s.Metadata(t.Context(), "metadata/timestamp.json", 100)
			} else {
				to := &slot{data: make([]byte, len(w.image))}
				_, err = update(t.Context(), s, hostile, x, to)
				if wrong := x.Check(0, to.data); len(wrong) == 600 && name == "forged" {
					t.Error("the blocks that were right were not kept")
				}
				if bytes.Contains(to.data, forged[300*verity.BlockSize:301*verity.BlockSize]) {
					t.Error("the forged block was written")
				}
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("it said %v, want %q", err, tt.want)
			}
			if n := hostile.asked.Load(); n > 25 {
				t.Errorf("the server was asked %d times", n)
			}
		})
	}
}

func TestEndlessMetadata(t *testing.T) {
	s := open(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	}))
	if _, err := s.Metadata(t.Context(), "metadata/timestamp.json", 16384); err == nil || !strings.Contains(err.Error(), "fetching metadata/timestamp.json: it has more than 16384 bytes") {
		t.Errorf("it said %v", err)
	}
}

func TestDiskErrorsAreNotTheServers(t *testing.T) {
	w := newSite(3000, 0)
	s := open(t, w)
	full := errors.New("the disk is broken")
	if _, err := update(t.Context(), s, w, index(t, w.image), &slot{data: make([]byte, len(w.image)), fail: full}); !errors.Is(err, full) {
		t.Errorf("it said %v", err)
	}
	if err := s.Stream(t.Context(), w.file, brokenWriter{full}); !errors.Is(err, full) {
		t.Errorf("it said %v", err)
	}
	if n := w.asked.Load(); n > 8 {
		t.Errorf("the server was asked %d times", n)
	}
}

type brokenWriter struct{ err error }

func (w brokenWriter) Write([]byte) (int, error) { return 0, w.err }

func TestStreamGoesOnAfterCuts(t *testing.T) {
	w := newSite(1000, 1)
	w.bend = func(rw http.ResponseWriter, r *http.Request, serve http.HandlerFunc) { serve(&cutting{rw, 1 << 20}, r) }
	var got bytes.Buffer
	if err := open(t, w).Stream(t.Context(), w.file, &got); err != nil || !bytes.Equal(got.Bytes(), w.image) {
		t.Errorf("got %d bytes (%v)", got.Len(), err)
	}
	if n := w.asked.Load(); n != 4 {
		t.Errorf("it took %d requests, want 4", n)
	}
	w.file.SHA256[0] ^= 1
	if err := open(t, w).Stream(t.Context(), w.file, io.Discard); err == nil {
		t.Error("a file under another name is accepted")
	}
}

func TestFilesAreVerified(t *testing.T) {
	w := newSite(3, 5)
	s := open(t, w)
	if b, err := s.File(t.Context(), w.file, 1<<20); err != nil || !bytes.Equal(b, w.image) {
		t.Errorf("got %d bytes (%v)", len(b), err)
	}
	if _, err := s.File(t.Context(), w.file, 100); err == nil || !strings.Contains(err.Error(), "want at most 100") {
		t.Errorf("it said %v", err)
	}
	name, forged := w.file.Name(), bytes.Clone(w.image)
	forged[100] ^= 1
	w.bend = func(rw http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		http.ServeContent(rw, r, "", time.Time{}, bytes.NewReader(forged))
	}
	if _, err := s.File(t.Context(), w.file, 1<<20); err == nil || !strings.Contains(err.Error(), "fetching "+name+": what the server sends has SHA-256 "+hex.EncodeToString(sum(forged))) {
		t.Errorf("it said %v", err)
	}
}

func sum(b []byte) []byte {
	s := sha256.Sum256(b)
	return s[:]
}

func TestDirectoriesAreServersToo(t *testing.T) {
	w := newSite(700, 9)
	dir := t.TempDir()
	name := filepath.Join(dir, filepath.FromSlash(w.file.Name()))
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, w.image, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := fetch.Open(dir, fetch.Options{Backoff: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	to := &slot{data: make([]byte, len(w.image))}
	copy(to.data, w.image[:300*verity.BlockSize])
	tally, err := update(t.Context(), s, w, index(t, w.image), to)
	if err != nil || !bytes.Equal(to.data, w.image) || tally.Bytes.Load() != int64(len(w.image)-300*verity.BlockSize) {
		t.Errorf("got %d bytes (%v)", tally.Bytes.Load(), err)
	}
	if _, err := s.Metadata(t.Context(), "metadata/2.root.json", 100); !errors.Is(err, repo.ErrNotFound) {
		t.Errorf("it said %v", err)
	}
}

func TestAddresses(t *testing.T) {
	for address, want := range map[string]string{
		"ftp://example.net":              "is no address of a repository",
		"https://":                       "is no address of a repository",
		"https://me:secret@example.net/": "has a password in it",
	} {
		_, err := fetch.Open(address, fetch.Options{})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestTokenIsSent(t *testing.T) {
	var got string
	web := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got = r.Header.Get("Authorization") + " " + r.UserAgent()
	}))
	defer web.Close()
	s, err := fetch.Open(web.URL, fetch.Options{Token: "abc", UserAgent: "IncusOS/202611271200"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Metadata(t.Context(), "x", 10); err != nil || got != "Bearer abc IncusOS/202611271200" {
		t.Errorf("sent %q (%v)", got, err)
	}
}

func TestStopsWhenAsked(t *testing.T) {
	w := newSite(600, 0)
	ctx, cancel := context.WithCancel(t.Context())
	w.bend = func(_ http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		cancel()
		<-r.Context().Done()
	}
	if _, err := update(ctx, open(t, w), w, index(t, w.image), &slot{data: make([]byte, len(w.image))}); !errors.Is(err, context.Canceled) {
		t.Errorf("it said %v", fmt.Sprint(err))
	}
}

// Who says how requests go decides for each, and a proxy that makes no tunnel is
// quoted.
func TestWay(t *testing.T) {
	var asked atomic.Int64
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Method == http.MethodConnect {
			http.Error(w, "over the proxy \"corp\": no such host\nand more", http.StatusBadGateway)
			return
		}
		fmt.Fprint(w, "from ", r.URL)
	}))
	defer proxy.Close()
	over, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	closed := errors.New("there is no way")
	tests := map[string]struct {
		address    string
		way        fetch.Way
		want, fail string
		asked      int64
	}{
		"plain":  {"http://updates.invalid/x", func(*http.Request) (*url.URL, error) { return over, nil }, "from http://updates.invalid/x/a", "", 1},
		"secure": {"https://updates.invalid/x", func(*http.Request) (*url.URL, error) { return over, nil }, "", `the proxy refuses: "over the proxy \"corp\": no such host"`, 1},
		"none":   {proxy.URL, func(*http.Request) (*url.URL, error) { return nil, closed }, "", closed.Error(), 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			asked.Store(0)
			s, err := fetch.Open(tt.address, fetch.Options{Proxy: tt.way, Attempts: 1})
			if err != nil {
				t.Fatal(err)
			}
			b, err := s.Metadata(t.Context(), "a", 100)
			if string(b) != tt.want || (err == nil) != (tt.fail == "") || err != nil && !strings.Contains(err.Error(), tt.fail) {
				t.Errorf("it got %q, %v; want %q, %q", b, err, tt.want, tt.fail)
			}
			if got := asked.Load(); got != tt.asked {
				t.Errorf("the proxy was asked %d times; want %d", got, tt.asked)
			}
		})
	}
}
