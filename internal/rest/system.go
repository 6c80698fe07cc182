package rest

import (
	"context"
	"io"
	"net/http"
	"reflect"
	"strings"

	"github.com/incusos/incusos/api"
)

// Media types: clients take no other for an answer that is no document.
const (
	gzip   = "application/gzip"
	octets = "application/octet-stream"
)

// systemRoutes are those of /1.0/system.
func (m Machine) systemRoutes() []Route {
	const dir = "/1.0/system"
	routes := []Route{{Method: "GET", Path: dir, About: "The parts of the system: a list of paths.", Answer: typeOf[[]string](), do: links(parts()...)}}
	routes = append(routes, m.powerRoutes(dir)...)
	routes = append(routes, m.backupRoutes(dir)...)
	routes = append(routes, resource(dir+"/fallback-listener", "The way to the API for when Incus cannot answer.", m.FallbackListener)...)
	routes = append(routes, resource(dir+"/kernel", "How the kernel is set.", m.Kernel)...)
	routes = append(routes, resource(dir+"/logging", "Where the log goes.", m.Logging)...)
	routes = append(routes, resource(dir+"/network", "The network: what is wanted and what there is.", m.Network)...)
	routes = append(routes, resource(dir+"/provider", "Where updates come from. The answer may hold a token.", m.Provider)...)
	routes = append(routes, resource(dir+"/security", "Secure Boot, the TPM, and the keys to write down. The answer holds secrets.", m.Security)...)
	routes = append(routes, resource(dir+"/storage", "Drives and pools.", m.Storage)...)
	routes = append(routes, resource(dir+"/update", "When updates are made, and how that goes.", m.Update)...)
	routes = append(routes, Route{Method: "GET", Path: dir + "/resources", About: "The hardware, in the shape of Incus' own /1.0/resources.", Answer: typeOf[api.Resources](), do: document(m.Resources, dir+"/resources")})
	routes = append(routes, m.attestationRoute(dir+"/security/attestation"))
	for i := range routes {
		routes[i].Secret = routes[i].Secret || routes[i].Method == http.MethodGet && (routes[i].Path == dir+"/security" || routes[i].Path == dir+"/provider")
	}
	return append(routes, m.actionRoutes(dir)...)
}

// parts are what GET /1.0/system lists.
func parts() []string {
	var paths []string
	for _, name := range strings.Fields("fallback-listener kernel logging network provider resources security storage update") {
		paths = append(paths, "/1.0/system/"+name)
	}
	return paths
}

func (m Machine) powerRoutes(dir string) []Route {
	return []Route{
		{Method: "POST", Path: dir + "/:poweroff", About: "Turn the machine off, after the answer was sent.", do: m.power(Power.Poweroff)},
		{Method: "POST", Path: dir + "/:reboot", About: "Restart the machine, after the answer was sent.", do: m.power(Power.Reboot)},
		{Method: "POST", Path: dir + "/:suspend", About: "Suspend the machine to memory, after the answer was sent. Instances stop running until it wakes.", do: m.power(Power.Suspend)},
	}
}

// power answers first: the machine may be gone before the answer is read.
func (m Machine) power(act func(Power, context.Context) error) endpoint {
	return func(*http.Request) (any, error) {
		if m.Power == nil {
			return nil, api.Errorf(api.Unsupported, "this machine cannot be turned off")
		}
		return later(func(ctx context.Context) error { return act(m.Power, ctx) }), nil
	}
}

// thenRestart does something that counts from the next start on, and restarts
// the machine once that was answered.
func (m Machine) thenRestart(do func(*http.Request) error) endpoint {
	restart := m.power(Power.Reboot)
	return func(r *http.Request) (any, error) {
		after, err := restart(r)
		if err != nil {
			return nil, err
		}
		return after, do(r)
	}
}

func (m Machine) backupRoutes(dir string) []Route {
	b := m.Backup
	routes := []Route{
		{Method: "POST", Path: dir + "/:backup", About: "The configuration of the machine and its keys, as an archive. It holds secrets.", Stream: gzip, Secret: true,
			do: func(r *http.Request) (any, error) { return b.Backup(r.Context()) }},
		{Method: "POST", Path: dir + "/:restore", About: "Put back what `:backup` gave, and restart.", Upload: gzip,
			Query: []Query{{"skip", "What to leave as it is, with commas between: `encryption-recovery-keys`, `local-data-encryption-key`, `network-macs`."}},
			do:    m.thenRestart(func(r *http.Request) error { return b.Restore(detached(r), r.Body, list(r, "skip")) })},
		{Method: "POST", Path: dir + "/:factory-reset", About: "Make the machine as it was first installed, and restart. Everything on its system drive is lost.", Body: typeOf[api.SystemReset](),
			do: m.thenRestart(func(r *http.Request) error {
				var reset api.SystemReset
				if err := decodeOptional(r, &reset); err != nil {
					return err
				}
				return b.FactoryReset(detached(r), reset)
			})},
	}
	if b == nil {
		for i := range routes {
			routes[i].do = notHere(routes[i].Path)
		}
	}
	return routes
}

// list returns the words of a query key that are between commas.
func list(r *http.Request, key string) []string {
	var words []string
	for _, value := range r.URL.Query()[key] {
		words = append(words, strings.FieldsFunc(value, func(c rune) bool { return c == ',' })...)
	}
	return words
}

// actions are the routes that only do something.
const actions = `
/network/:flush-dns                Forget the answers of name servers.
/security/:remove-pin              Unlock without asking for a PIN, from the next start on.
/security/:retrieved               Say that the recovery keys were written down.
/security/:set-pin                 Ask for this PIN at each start, besides what the TPM wants; it takes the place of an earlier one.
/security/:tpm-rebind              Bind the disks to the TPM anew, after a recovery key was used. It counts from the next start on, and is refused when that unlocks anyway. The PIN is for machines that ask for one.
/storage/:cleanup-root             Make room on the root file system: old logs and caches go.
/storage/:create-volume            Make a dataset in a pool.
/storage/:delete-pool              Destroy a pool and wipe its drives.
/storage/:delete-volume            Destroy a dataset of a pool.
/storage/:encrypt-drive            Encrypt a drive. What it held is lost.
/storage/:import-encrypted-drive   Open a drive that was encrypted elsewhere.
/storage/:import-pool              Import a pool that was made elsewhere.
/storage/:rescan-scsi              Look for new disks on all SCSI hosts.
/storage/:scrub-pool               Check the data of a pool against its checksums.
/storage/:trim-pool                Tell the drives of a pool which blocks are free.
/storage/:wipe-drive               Wipe a drive. What it held is lost.
/update/:check                     Look for updates now. Fetching and staging one is a task.
/update/:forgive                   Let a version be tried again that did not work.
/update/:pause                     Stop what is being fetched, and do nothing until updates are resumed; the same as setting paused in the configuration.
/update/:repair                    Look for damage in what the machine has of its versions, and mend it from the repository, as a task.
/update/:resume                    Go on with updates.
/update/:rollback                  Go back to the version before. The one that runs is not tried again until it is forgiven.
`

func (m Machine) actionRoutes(dir string) []Route {
	var routes []Route
	for line := range strings.Lines(strings.TrimSpace(actions)) {
		path, about, _ := strings.Cut(strings.TrimSpace(line), " ")
		routes = append(routes, Route{Method: "POST", Path: dir + path, About: strings.TrimSpace(about), Body: actionBody(path), do: m.action(dir + path)})
	}
	return routes
}

// actionBody is the document that an action takes; nil if it takes none.
func actionBody(path string) reflect.Type {
	switch path {
	case "/storage/:create-volume":
		return typeOf[api.StorageVolumeCreate]()
	case "/storage/:delete-volume":
		return typeOf[api.StorageVolumeDelete]()
	case "/storage/:delete-pool", "/storage/:scrub-pool", "/storage/:trim-pool":
		return typeOf[api.StoragePoolName]()
	case "/storage/:encrypt-drive", "/storage/:wipe-drive":
		return typeOf[api.StorageDriveWipe]()
	case "/storage/:import-encrypted-drive":
		return typeOf[api.StorageDriveImport]()
	case "/storage/:import-pool":
		return typeOf[api.StoragePoolImport]()
	case "/security/:set-pin", "/security/:tpm-rebind":
		return typeOf[api.SecurityPIN]()
	case "/update/:check":
		return typeOf[api.UpdateCheck]()
	case "/update/:forgive":
		return typeOf[api.UpdateForgive]()
	case "/update/:rollback":
		return typeOf[api.UpdateRollback]()
	}
	return nil
}

func (m Machine) action(path string) endpoint {
	act := m.Actions[path]
	if act == nil {
		return notHere(path)
	}
	return func(r *http.Request) (any, error) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		return nil, act(detached(r), body)
	}
}

// attestationRoute is how somebody far away learns what the machine has started.
func (m Machine) attestationRoute(path string) Route {
	r := Route{Method: "GET", Path: path, About: "What the TPM says of how the machine was started, signed for whoever asks, with the logs and keys to check it: `incusos os attest` does. It holds no secrets.",
		Answer: typeOf[api.Attestation](), Query: []Query{
			{"nonce", "32 to 64 hexadecimal digits that nobody can guess, which are then in the quote."},
			{"credential", "A riddle for the TPM that holds both keys, as base64 for URLs; the answer is then in `activated`."},
		}, do: notHere(path)}
	if m.Attest != nil {
		r.do = func(r *http.Request) (any, error) {
			q := r.URL.Query()
			return m.Attest(r.Context(), q.Get("nonce"), q.Get("credential"))
		}
	}
	return r
}

// document answers with what read returns.
func document[T any](read func(context.Context) (T, error), path string) endpoint {
	if read == nil {
		return notHere(path)
	}
	return func(r *http.Request) (any, error) { return read(r.Context()) }
}
