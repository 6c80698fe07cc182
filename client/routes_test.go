package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/client"
	"github.com/incusos/incusos/internal/rest"
)

// named is what {name} stands for in the calls below. It must not be taken for
// a part of the path.
const named = "a/b"

// A call is the use of one method.
type call func(ctx context.Context, c *client.Client) error

func attestation(ctx context.Context, c *client.Client) error {
	_, err := c.Attestation(ctx, "00112233445566778899aabbccddeeff", "AAAA")
	return err
}

// calls are uses of the methods, by the routes that they are for.
func calls() map[string]call {
	all := map[string]call{
		"GET /":                                            get((*client.Client).Roots),
		"GET /1.0":                                         get((*client.Client).Server),
		"GET /1.0/system":                                  get((*client.Client).System),
		"GET /1.0/system/resources":                        get((*client.Client).Resources),
		"GET /1.0/system/security/attestation":             attestation,
		"GET /1.0/applications":                            get((*client.Client).Applications),
		"GET /1.0/services":                                get((*client.Client).Services),
		"GET /1.0/tasks":                                   get((*client.Client).Tasks),
		"GET /1.0/trial":                                   get((*client.Client).Trial),
		"GET /1.0/debug":                                   get((*client.Client).Debug),
		"GET /1.0/debug/kernel":                            get((*client.Client).DebugKernel),
		"GET /1.0/debug/processes":                         get((*client.Client).Processes),
		"GET /1.0/debug/secureboot":                        get((*client.Client).SecureBoot),
		"GET /1.0/debug/secureboot/event-log":              get((*client.Client).EventLog),
		"GET /1.0/debug/secureboot/doctor":                 get((*client.Client).Doctor),
		"POST /1.0/system/:reboot":                         does((*client.Client).Reboot),
		"POST /1.0/system/:poweroff":                       does((*client.Client).Poweroff),
		"POST /1.0/system/:suspend":                        does((*client.Client).Suspend),
		"POST /1.0/system/network/:flush-dns":              does((*client.Client).FlushDNS),
		"POST /1.0/system/security/:retrieved":             does((*client.Client).KeysRetrieved),
		"POST /1.0/system/security/:tpm-rebind":            func(ctx context.Context, c *client.Client) error { return c.RebindTPM(ctx, "314159") },
		"POST /1.0/system/security/:set-pin":               with((*client.Client).SetPIN),
		"POST /1.0/system/security/:remove-pin":            does((*client.Client).RemovePIN),
		"POST /1.0/system/storage/:cleanup-root":           does((*client.Client).CleanupRoot),
		"POST /1.0/system/storage/:rescan-scsi":            does((*client.Client).RescanSCSI),
		"POST /1.0/applications/{name}/:remove":            of((*client.Client).RemoveApplication),
		"POST /1.0/applications/{name}/:restart":           of((*client.Client).RestartApplication),
		"POST /1.0/applications/{name}/:factory-reset":     of((*client.Client).ResetApplication),
		"POST /1.0/applications/{name}/:check-update":      of((*client.Client).CheckApplication),
		"POST /1.0/applications":                           of((*client.Client).AddApplication),
		"POST /1.0/services/{name}/:reset":                 of((*client.Client).ResetService),
		"POST /1.0/tasks/{name}/:cancel":                   of((*client.Client).CancelTask),
		"POST /1.0/system/storage/:delete-pool":            of((*client.Client).DeletePool),
		"POST /1.0/system/storage/:scrub-pool":             of((*client.Client).ScrubPool),
		"POST /1.0/system/storage/:trim-pool":              of((*client.Client).TrimPool),
		"POST /1.0/system/storage/:wipe-drive":             with((*client.Client).WipeDrive),
		"POST /1.0/system/storage/:encrypt-drive":          with((*client.Client).EncryptDrive),
		"POST /1.0/system/storage/:import-encrypted-drive": with((*client.Client).ImportDrive),
		"POST /1.0/system/storage/:import-pool":            with((*client.Client).ImportPool),
		"POST /1.0/system/storage/:create-volume":          with((*client.Client).CreateVolume),
		"POST /1.0/system/storage/:delete-volume":          with((*client.Client).DeleteVolume),
		"POST /1.0/system/:factory-reset":                  with((*client.Client).FactoryReset),
		"POST /1.0/system/update/:check":                   with((*client.Client).CheckUpdates),
		"POST /1.0/system/update/:forgive":                 with((*client.Client).ForgiveUpdate),
		"POST /1.0/system/update/:pause":                   does((*client.Client).PauseUpdates),
		"POST /1.0/system/update/:resume":                  does((*client.Client).ResumeUpdates),
		"POST /1.0/system/update/:repair":                  does((*client.Client).RepairUpdate),
		"POST /1.0/system/update/:rollback":                with((*client.Client).RollBack),
		"POST /1.0/system/:backup":                         streams((*client.Client).Backup),
		"GET /1.0/debug/bundle":                            streams((*client.Client).Bundle),
		"POST /1.0/debug/secureboot/:update":               uploads((*client.Client).UpdateSecureBoot),
	}
	maps.Copy(all, map[string]call{
		"GET /1.0/tasks/{name}": func(ctx context.Context, c *client.Client) error { _, err := c.Task(ctx, named); return err },
		"GET /1.0/audit":        func(ctx context.Context, c *client.Client) error { _, err := c.Audit(ctx, 1); return err },
		"GET /1.0/debug/log": func(ctx context.Context, c *client.Client) error {
			_, err := c.Log(ctx, api.DebugLogQuery{Unit: "x", Entries: 1})
			return err
		},
		"GET /1.0/debug/report":                         func(ctx context.Context, c *client.Client) error { _, err := c.Report(ctx, "a", "b"); return err },
		"POST /1.0/debug/:run-script":                   func(ctx context.Context, c *client.Client) error { _, err := c.RunScript(ctx, archive()); return err },
		"POST /1.0/system/:restore":                     func(ctx context.Context, c *client.Client) error { return c.Restore(ctx, archive(), "network-macs") },
		"POST /1.0/applications/{name}/:switch-version": func(ctx context.Context, c *client.Client) error { return c.SwitchApplication(ctx, named, "") },
		"POST /1.0/applications/{name}/:action": func(ctx context.Context, c *client.Client) error {
			return c.ActOnApplication(ctx, named, api.ApplicationAction{})
		},
		"POST /1.0/applications/{name}/:debug": func(ctx context.Context, c *client.Client) error {
			return c.DebugApplication(ctx, named, api.ApplicationAction{}, io.Discard)
		},
		"POST /1.0/applications/{name}/:backup": func(ctx context.Context, c *client.Client) error {
			return c.BackupApplication(ctx, named, api.ApplicationBackup{}, io.Discard)
		},
		"POST /1.0/applications/{name}/:restore": func(ctx context.Context, c *client.Client) error {
			return c.RestoreApplication(ctx, named, archive())
		},
	})
	addResource(all, "/1.0/system/fallback-listener", (*client.Client).FallbackListener)
	addResource(all, "/1.0/system/kernel", (*client.Client).Kernel)
	addResource(all, "/1.0/system/logging", (*client.Client).Logging)
	addResource(all, "/1.0/system/network", (*client.Client).Network)
	addResource(all, "/1.0/system/security", (*client.Client).Security)
	addResource(all, "/1.0/system/storage", (*client.Client).Storage)
	addResource(all, "/1.0/system/provider", (*client.Client).Provider)
	addResource(all, "/1.0/system/update", (*client.Client).Update)
	addResource(all, "/1.0/applications/{name}", func(c *client.Client) client.Resource[api.Application, api.ApplicationConfig] {
		return c.Application(named)
	})
	addResource(all, "/1.0/services/{name}", func(c *client.Client) client.Resource[json.RawMessage, json.RawMessage] {
		return c.Service(named)
	})
	for _, name := range api.ServiceNames() {
		addResource(all, "/1.0/services/"+name, func(c *client.Client) client.Resource[json.RawMessage, json.RawMessage] {
			return c.Service(name)
		})
		delete(all, "POST /1.0/services/"+name+"/:confirm") // one route for all of them
	}
	return all
}

// The forms that most methods have.

func get[T any](method func(*client.Client, context.Context) (T, error)) call {
	return func(ctx context.Context, c *client.Client) error { _, err := method(c, ctx); return err }
}

func does(method func(*client.Client, context.Context) error) call {
	return func(ctx context.Context, c *client.Client) error { return method(c, ctx) }
}

func of(method func(*client.Client, context.Context, string) error) call {
	return func(ctx context.Context, c *client.Client) error { return method(c, ctx, named) }
}

func with[T any](method func(*client.Client, context.Context, T) error) call {
	return func(ctx context.Context, c *client.Client) error { return method(c, ctx, *new(T)) }
}

func streams(method func(*client.Client, context.Context, io.Writer) error) call {
	return func(ctx context.Context, c *client.Client) error {
		var b bytes.Buffer
		err := method(c, ctx, &b)
		if err == nil && b.String() != "archive" {
			err = fmt.Errorf("got %q", b.String())
		}
		return err
	}
}

func uploads(method func(*client.Client, context.Context, io.Reader) error) call {
	return func(ctx context.Context, c *client.Client) error { return method(c, ctx, archive()) }
}

func addResource[D, C any](all map[string]call, path string, r func(*client.Client) client.Resource[D, C]) {
	all["GET "+path] = func(ctx context.Context, c *client.Client) error { _, err := r(c).Get(ctx); return err }
	all["PUT "+path] = func(ctx context.Context, c *client.Client) error {
		return r(c).Put(ctx, *new(C), client.TryOptions{})
	}
	all["POST "+path+"/:confirm"] = func(ctx context.Context, c *client.Client) error { return r(c).Confirm(ctx) }
}

func archive() io.Reader { return strings.NewReader("archive") }

func TestEveryRouteHasAMethod(t *testing.T) {
	all := calls()
	for _, route := range rest.Routes(rest.Machine{}) {
		key := route.Method + " " + route.Path
		use, ok := all[key]
		if !ok {
			t.Errorf("client has no method for %s; add one, and its call to this test", key)
			continue
		}
		delete(all, key)
		t.Run(key, func(t *testing.T) { checkCall(t, route, use) })
	}
	for key := range all {
		t.Errorf("client asks for %s, which is no route", key)
	}
}

// checkCall makes a call and looks at what arrives.
func checkCall(t *testing.T, route rest.Route, use call) {
	asked, body := "", ""
	c := server(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		asked, body = r.Method+" "+r.URL.EscapedPath(), string(b)
		if route.Stream != "" {
			w.Header().Set("Content-Type", route.Stream)
			fmt.Fprint(w, "archive")
			return
		}
		fmt.Fprint(w, `{"type":"sync","status_code":200,"metadata":null}`)
	})
	if err := use(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	want := route.Method + " /os" + strings.ReplaceAll(route.Path, "{name}", "a%2Fb")
	if asked != want {
		t.Errorf("asked for %s, want %s", asked, want)
	}
	if document, upload := strings.HasPrefix(body, "{"), body == "archive"; document != (route.Body != nil) || upload != (route.Upload != "") {
		t.Errorf("sent %q; the route takes the document %v, or %q", body, route.Body, route.Upload)
	}
}
