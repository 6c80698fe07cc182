package publish

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"os"
	"path"
	"strings"
)

// Handler serves the repository in dir: the files in metadata and targets, with
// range requests, and nothing else. If token is not empty, a request has to bring
// it ("Authorization: Bearer TOKEN").
func Handler(dir *os.Root, token string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET and HEAD are possible", http.StatusMethodNotAllowed)
		case token != "" && !sameToken(r.Header.Get("Authorization"), "Bearer "+token):
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "a token is needed", http.StatusUnauthorized)
		default:
			serveFile(w, r, dir)
		}
	})
}

// sameToken compares in a time that says nothing of where the two differ.
func sameToken(got, want string) bool {
	a, b := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

func serveFile(w http.ResponseWriter, r *http.Request, dir *os.Root) {
	name := strings.TrimPrefix(path.Clean("/"+r.URL.Path), "/")
	if !strings.HasPrefix(name, "metadata/") && !strings.HasPrefix(name, "targets/") || strings.Contains(name, "/.") {
		http.NotFound(w, r)
		return
	}
	f, err := dir.Open(name)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Cache-Control", caching(name))
	http.ServeContent(w, r, "", info.ModTime(), f)
}

// caching says how long others may keep a file: those with a hash or a number in
// their name never change.
func caching(name string) string {
	if name == "metadata/timestamp.json" {
		return "no-cache"
	}
	return "max-age=31536000, immutable"
}
