package daemon_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/incusos/incusos/internal/daemon"
	"github.com/incusos/incusos/internal/rest"
	"github.com/incusos/incusos/internal/sys/systest"
)

// bundle fetches the bundle of m and unpacks it.
func bundle(t *testing.T, m *running) map[string]string {
	t.Helper()
	var archive bytes.Buffer
	if err := m.api.Bundle(t.Context(), &archive); err != nil {
		t.Fatal(err)
	}
	zipped, err := gzip.NewReader(&archive)
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]string)
	for r := tar.NewReader(zipped); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimPrefix(h.Name, "incus-os-bundle/")] = string(content)
	}
}

// Whatever holds a secret on the machine: none is in the bundle, in no encoding.
func TestBundleHoldsNoSecret(t *testing.T) {
	const recovery = "fjrbcvkt-uhlnjrki-dkvdtgfb-ecbkedvj-ttkltinr-gdnuvtki-bfjvdckr-ultcrfvn"
	rig := machine(t)
	systest.NewJournal(rig)
	if err := rig.Host.Files.WriteFile("/var/lib/incus-os/recovery.root.key", []byte(recovery+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := start(t, rig, func(*daemon.Options) {})
	m.waitFor(readyLine)

	doc, err := m.api.Security().Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	secrets := []string{recovery}
	for _, key := range doc.State.PoolRecoveryKeys {
		raw, err := base64.StdEncoding.DecodeString(string(key))
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, string(key), string(raw), hex.EncodeToString(raw))
	}
	if len(secrets) < 4 || len(doc.Config.EncryptionRecoveryKeys) != 1 || string(doc.Config.EncryptionRecoveryKeys[0]) != recovery {
		t.Fatalf("the machine has %d secrets; want those of its pool and its root", len(secrets))
	}
	files := bundle(t, m)
	for name, content := range files {
		for _, s := range secrets {
			if strings.Contains(content, s) {
				t.Errorf("%s holds a secret", name)
			}
		}
	}
	if !strings.Contains(files["documents/system/security.json"], "(secret)") {
		t.Error("the document with the secrets is not in the bundle, or does not say that it lacks them")
	}
	if got := files["ERRORS.txt"]; got != "There were none.\n" {
		t.Errorf("ERRORS.txt is %q", got)
	}
	m.stop(nil)
}

// A resource that is added must not be forgotten.
func TestBundleHoldsEveryResource(t *testing.T) {
	rig := machine(t)
	var served rest.Machine
	m := start(t, rig, func(o *daemon.Options) { served = o.Machine })
	m.waitFor(readyLine)
	files := bundle(t, m)
	documents := 0
	for name := range files {
		if strings.HasPrefix(name, "documents/system/") {
			documents++
		}
	}
	resources := 0
	for _, f := range reflect.ValueOf(served).Fields() {
		if f.Kind() != reflect.Interface || f.IsNil() {
			continue
		}
		if _, ok := f.Type().MethodByName("Try"); ok && !strings.Contains(f.Type().String(), "Applications") && !strings.Contains(f.Type().String(), "Family") {
			resources++
		}
	}
	if served.Resources != nil {
		resources++
	}
	if documents != resources || resources < 3 {
		t.Errorf("there are %d documents of the system in the bundle and %d resources; see bundled in debug.go", documents, resources)
	}
	m.stop(nil)
}

func TestFiguresAreServed(t *testing.T) {
	address := freePort(t)
	m := start(t, machine(t), func(o *daemon.Options) { o.Metrics = address })
	m.waitFor(readyLine)
	resp, err := http.Get("http://" + address + "/metrics") //nolint:noctx // of ourselves
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"incusos_ready 1\n", `incusos_area_healthy{area="storage"} 1`, `incusos_pool_online{pool="local"`, `incusos_info{version="202601010000"`} {
		if !strings.Contains(string(body), want) {
			t.Errorf("%q is not in\n%s", want, body)
		}
	}
	m.stop(nil)
	if conn, err := net.Dial("tcp", address); err == nil { //nolint:noctx // of ourselves
		conn.Close()
		t.Error("figures are still served")
	}
}

func TestFiguresThatCannotBeServedAreAWarning(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // of ourselves
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	m := start(t, machine(t), func(o *daemon.Options) { o.Metrics = taken.Addr().String() })
	m.waitFor(readyLine)
	m.waitFor("warning: figures for Incus and Prometheus are not served: listen tcp " + taken.Addr().String() + ": bind: address already in use")
	m.stop(nil)
}

// freePort returns an address of this machine that nobody uses.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // of ourselves
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
