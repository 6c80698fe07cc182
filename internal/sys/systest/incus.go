package systest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/incusos/incusos/internal/sys"
)

// Incus models the part of Incus that the system uses, by its REST API: the
// server's configuration, and objects by their paths. It answers while
// incus.service is active, has a default profile and project from the start,
// makes pools in the background and keeps what it has beside its socket, as the
// real one keeps its database.
type Incus struct {
	files  sys.Dir
	mu     sync.Mutex
	server *http.Server // nil while it is down
	db     incusDB

	changes  int    // requests that changed something
	noSubnet string // families for which "auto" finds none
	failing  string // how work in the background ends, "" is well
	fault    func(op, name string) error
	waitsFor []string // members of a cluster with an older Incus
}

// An incusDB is what outlives the model.
type incusDB struct {
	Config  object            `json:"config"`
	Objects map[string]object `json:"objects"` // "/1.0/networks/incusbr0" to what was sent
}

const (
	incusDir    = "/var/lib/incus"
	incusSocket = incusDir + "/unix.socket"
	incusFile   = incusDir + "/database/pretend.json"
	incusLog    = "/var/log/incus/incusd.log"
)

// NewIncus puts Incus behind incus.service of rig.
func NewIncus(rig *Rig) *Incus {
	f := &Incus{files: rig.Host.Files, db: newIncusDB()}
	rig.Units.Model("incus.service", f.start, f.stop)
	return f
}

// LinkIncus has the machine reach an Incus that runs beside it, by its socket, see
// whether that is in a cluster, and come to other members as it does.
func LinkIncus(rig *Rig, socket string) error {
	files := rig.Host.Files
	names := []string{path.Base(socket), "cluster.crt"}
	if _, err := os.Stat(path.Join(path.Dir(socket), "cluster.crt")); err == nil {
		names = append(names, "server.crt", "server.key") // earlier, they would be what is left of a first start that was cut
	}
	err := files.MkdirAll(incusDir, 0o711)
	for _, name := range names {
		link := incusDir + "/" + name
		err = errors.Join(err, files.RemoveAll(link), files.Symlink(path.Join(path.Dir(socket), name), link))
	}
	return err
}

// newIncusDB is what Incus has at its first start.
func newIncusDB() incusDB {
	return incusDB{Config: object{}, Objects: map[string]object{
		"/1.0/profiles/default": {"name": "default"},
		"/1.0/projects/default": {"name": "default"},
	}}
}

// start serves the socket. It is made by way of its directory, since the names
// of sockets are short and those of trees may be long.
func (f *Incus) start() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.load(); err != nil {
		return err
	}
	dir, err := os.Open(f.files.Path(incusDir))
	if err != nil {
		return err
	}
	defer dir.Close()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), path.Base(incusSocket))})
	if err != nil {
		return err
	}
	listener.SetUnlinkOnClose(false)    // by a name that means something else by then
	f.server = &http.Server{Handler: f} //nolint:gosec // those who ask are ours
	go func(s *http.Server) { _ = s.Serve(listener) }(f.server)
	return nil
}

// load reads what an earlier run had, and makes room for the socket.
func (f *Incus) load() error {
	if err := errors.Join(f.files.MkdirAll(incusDir, 0o711), f.files.RemoveAll(incusSocket)); err != nil {
		return err
	}
	b, err := f.files.ReadFile(incusFile)
	f.db = newIncusDB()
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		if err := json.Unmarshal(b, &f.db); err != nil {
			return fmt.Errorf("the database of Incus: %w", err)
		}
	}
	return errors.Join(f.save(), f.files.MkdirAll(path.Dir(incusLog), 0o755), os.WriteFile(f.files.Path(incusLog), []byte("Starting up\n"), 0o600))
}

func (f *Incus) save() error {
	b, err := json.Marshal(f.db)
	if err != nil {
		return err
	}
	name := f.files.Path(incusFile)
	return errors.Join(os.MkdirAll(path.Dir(name), 0o700), os.WriteFile(name, b, 0o600))
}

// keep saves what somebody changed, unless Incus was never started.
func (f *Incus) keep() {
	if f.files.Exists(incusFile) {
		_ = f.save() // the next request says so
	}
}

func (f *Incus) stop() error {
	f.mu.Lock()
	s := f.server
	f.server = nil
	f.mu.Unlock()
	if s == nil {
		return nil
	}
	return errors.Join(s.Close(), f.files.RemoveAll(incusSocket))
}

// Close ends Incus without anybody having stopped its service.
func (f *Incus) Close() { _ = f.stop() } // a tree that is gone needs no tidying

// Config returns the configuration of the server.
func (f *Incus) Config() map[string]any {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.db.Config)
}

// Configure sets a key of the server's configuration, as an operator would.
func (f *Incus) Configure(key, value string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.db.Config[key] = value
	f.keep()
}

// Object returns what is at a path of the API such as "/1.0/networks/incusbr0";
// nil is nothing.
func (f *Incus) Object(p string) map[string]any {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.db.Objects[p])
}

// Put puts an object at a path of the API, as an operator would.
func (f *Incus) Put(p string, o map[string]any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.db.Objects[p] = o
	f.keep()
}

// Changes returns how many requests changed something.
func (f *Incus) Changes() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changes
}

// NoSubnet makes Incus find no free subnet of the families, which are of "IPv4
// IPv6".
func (f *Incus) NoSubnet(families string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.noSubnet = families
}

// FailWork makes work in the background end with an error; "" ends that.
func (f *Incus) FailWork(text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failing = text
}

// Fault has fault asked before each request that changes something, as "http",
// and after it is carried out but not answered, as "answer".
func (f *Incus) Fault(fault func(op, name string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

// WaitFor makes Incus one that is newer than that of other members of its cluster: it
// answers nothing but questions about itself. None ends that.
func (f *Incus) WaitFor(members ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waitsFor = members
}

// ServeHTTP implements http.Handler.
func (f *Incus) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	older := f.waitsFor
	f.mu.Unlock()
	if len(older) > 0 {
		wait(w, r, older)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Method == http.MethodGet {
		f.get(w, r)
		return
	}
	if f.fault != nil && f.fault("http", r.URL.Path) != nil {
		answer(w, http.StatusInternalServerError, "error", "cut")
		return
	}
	var body object
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		answer(w, http.StatusBadRequest, "error", err.Error())
		return
	}
	f.changes++
	f.change(w, r, body)
}

// wait answers as Incus 7.0.2 does while members have an older one.
func wait(w http.ResponseWriter, r *http.Request, older []string) {
	const own = "192.0.2.1:8443"
	var body object
	switch r.URL.Path {
	case "/internal/ready":
		answer(w, http.StatusServiceUnavailable, "error", "Daemon not ready yet")
	case "/internal/sql":
		rows := [][]any{{own}}
		if err := json.NewDecoder(r.Body).Decode(&body); err == nil && body["database"] == "global" {
			rows = [][]any{{own, "here", 77}}
			for i, name := range older {
				rows = append(rows, []any{fmt.Sprintf("192.0.2.%d:8443", 2+i), name, 76})
			}
		}
		answer(w, http.StatusOK, "sync", object{"Results": []object{{"type": "select", "rows": rows}}})
	default:
		<-r.Context().Done()
	}
}

func (f *Incus) get(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/1.0":
		answer(w, http.StatusOK, "sync", object{"config": f.db.Config, "environment": object{"server_version": "7.0.2"}})
	case r.URL.Path == "/1.0/certificates":
		paths := slices.DeleteFunc(slices.Sorted(maps.Keys(f.db.Objects)), func(p string) bool {
			return !strings.HasPrefix(p, "/1.0/certificates/")
		})
		answer(w, http.StatusOK, "sync", append([]string{}, paths...))
	case strings.HasSuffix(r.URL.Path, "/wait"):
		answer(w, http.StatusOK, "sync", object{"status_code": 200, "err": f.failing})
	case f.db.Objects[r.URL.Path] != nil:
		answer(w, http.StatusOK, "sync", f.db.Objects[r.URL.Path])
	default:
		answer(w, http.StatusNotFound, "error", "not found")
	}
}

func (f *Incus) change(w http.ResponseWriter, r *http.Request, body object) {
	there := f.db.Objects[r.URL.Path]
	config, _ := body["config"].(object)
	code, kind, text := http.StatusOK, "sync", ""
	switch {
	case r.URL.Path == "/1.0":
		maps.Copy(f.db.Config, config)
	case r.Method == http.MethodPatch && there == nil:
		code, kind, text = http.StatusNotFound, "error", "not found"
	case r.Method == http.MethodPatch:
		maps.Copy(there, body)
	default:
		code, kind, text = f.create(r.URL.Path, body, config)
	}
	if err := f.save(); err != nil {
		code, kind, text = http.StatusInternalServerError, "error", err.Error()
	}
	if f.fault != nil && f.fault("answer", r.URL.Path) != nil {
		panic(http.ErrAbortHandler) // done, and nobody was told
	}
	answer(w, code, kind, text)
}

// create adds to a collection and returns what to answer.
func (f *Incus) create(collection string, body, config object) (code int, kind, text string) {
	name, _ := body["name"].(string)
	if strings.HasSuffix(collection, "/certificates") {
		name = fingerprint(body["certificate"])
	}
	p := collection + "/" + name
	if f.db.Objects[p] != nil {
		return http.StatusBadRequest, "error", name + " already exists"
	}
	for family, key := range map[string]string{"IPv4": "ipv4.address", "IPv6": "ipv6.address"} {
		if strings.Contains(f.noSubnet, family) && config[key] == "auto" {
			return http.StatusInternalServerError, "error", "Failed to automatically find an unused " + family + " subnet, manual configuration required"
		}
	}
	if !strings.HasSuffix(collection, "/storage-pools") {
		f.db.Objects[p] = body
		return http.StatusCreated, "sync", ""
	}
	if f.failing == "" {
		f.db.Objects[p] = body
	}
	return http.StatusAccepted, "async", ""
}

// fingerprint is what Incus names a certificate by: the SHA-256 of its DER,
// which is sent in base64.
func fingerprint(certificate any) string {
	text, _ := certificate.(string)
	der, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return "not base64"
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// answer writes Incus' envelope; the metadata of an error is its text.
func answer(w http.ResponseWriter, code int, kind string, metadata any) {
	doc := object{"type": kind, "status": "Success", "status_code": code, "metadata": metadata}
	switch {
	case kind == "error":
		doc = object{"type": kind, "error_code": code, "error": metadata}
	case kind == "async":
		doc["metadata"], doc["operation"] = nil, "/1.0/operations/4c1c"
	case metadata == "":
		doc["metadata"] = nil
	}
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(doc)
}
