//go:build vm

package vm_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/vm"
	"github.com/incusos/incusos/test/debian"
	"github.com/incusos/incusos/test/vm/incus"
)

const (
	networkPath = "/os/1.0/system/network"
	elsewhere   = "10.0.2.99" // where no port of this host leads
	trialTime   = 30 * time.Second
)

// cutOff moves a machine to an address where nobody reaches it, on trial, and
// pulls its cable as well. It has to come back by itself.
func cutOff(t *testing.T, m *vm.Machine, id vm.Identity) {
	tree := openTree(t)
	r := start(t, m, vm.Boot{})
	if _, err := r.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := clientOf(r, id)
	trusted(t, r, c)
	before, began := read(t, r, c)
	if before.Config.ConfirmationTimeout != "" || !addressed(before, guest) {
		t.Fatalf("the machine begins with %+v", before)
	}
	moved := before.Config
	moved.ConfirmationTimeout = r.Scale.Of(trialTime).String()
	moved.Interfaces = []api.NetworkInterface{{Name: "moved", Hwaddr: card(t, before)}}
	moved.Interfaces[0].Addresses = []string{elsewhere + "/24"}

	ctx, cancel := context.WithTimeout(t.Context(), r.Scale.Of(10*time.Second))
	defer cancel()
	if err := c.Do(ctx, "PUT", networkPath, api.Network{Config: moved}, nil); err != nil {
		if _, refused := errors.AsType[*incus.Error](err); refused {
			t.Fatal(err)
		}
		t.Logf("the answer did not come through: %v", err)
	}
	pull(t, r, true)
	unreachable(t, r, c)
	pull(t, r, false)
	trusted(t, r, c) // within a minute after the trial, at its old address
	after, uptime := read(t, r, c)
	if !addressed(after, guest) || !same(after.Config, before.Config) {
		t.Errorf("the machine is back with %+v, want %+v", after, before)
	}
	if uptime <= began {
		t.Errorf("it was up for %d seconds, and is for %d: it started again", began, uptime)
	}
	overClient(t, r, c, tree, id)
}

// read returns the network, and for how many seconds the machine has been up.
func read(t *testing.T, r *vm.Running, c *incus.Client) (api.Network, int64) {
	t.Helper()
	ctx := within(t, r, 20*time.Second)
	var doc api.Network
	var server api.Server
	if err := errors.Join(c.Get(ctx, networkPath, &doc), c.Get(ctx, "/os/1.0", &server)); err != nil {
		t.Fatal(err)
	}
	return doc, int64(server.Environment.Uptime)
}

func addressed(doc api.Network, address string) bool {
	for _, i := range doc.State.Interfaces {
		if slices.ContainsFunc(i.Addresses, func(a string) bool { return strings.HasPrefix(a, address+"/") }) {
			return true
		}
	}
	return false
}

// card is the MAC address of the machine's one card.
func card(t *testing.T, doc api.Network) string {
	t.Helper()
	for _, i := range doc.State.Interfaces {
		if i.Hwaddr != "" {
			return i.Hwaddr
		}
	}
	t.Fatalf("no card among %+v", doc.State.Interfaces)
	return ""
}

func same(a, b api.NetworkConfig) bool {
	x, xErr := json.Marshal(a)
	y, yErr := json.Marshal(b)
	return errors.Join(xErr, yErr) == nil && string(x) == string(y)
}

// pull takes the network cable out, or puts it back.
func pull(t *testing.T, r *vm.Running, out bool) {
	t.Helper()
	if err := r.Monitor.Execute(within(t, r, 10*time.Second), "set_link", map[string]any{"name": "net", "up": !out}, nil); err != nil {
		t.Fatal(err)
	}
}

// unreachable wants nobody to answer for a third of the trial.
func unreachable(t *testing.T, r *vm.Running, c *incus.Client) {
	t.Helper()
	for end := time.Now().Add(r.Scale.Of(trialTime / 3)); time.Now().Before(end); {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		err := c.Get(ctx, "/1.0", nil)
		cancel()
		if err == nil {
			t.Fatal("the machine answers where it should not be any more")
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// overClient changes the network as operators do: `incus admin os system network`.
func overClient(t *testing.T, r *vm.Running, c *incus.Client, tree debian.Tree, id vm.Identity) {
	t.Helper()
	person := debian.Client{Tree: tree, Dir: t.TempDir(), Conf: t.TempDir()} // who knows no machine yet
	for _, name := range []string{id.Certificate(), id.Key()} {
		if err := copyLog(name, filepath.Join(person.Conf, filepath.Base(name))); err != nil {
			t.Fatal(err)
		}
	}
	ctx := within(t, r, 3*time.Minute)
	if err := person.Join(ctx, fmt.Sprintf("https://127.0.0.1:%d", r.Port)); err != nil {
		t.Fatal(err)
	}
	const changed = "config:\n  confirmation_timeout: 20m\n  dns:\n    search_domains: [confirmed.example.net]\n"
	for _, s := range []debian.Step{
		{Do: "system network show", Out: `(?m)^ +addresses:`},
		{Do: "system network confirm", Err: "no change is waiting"},
		{Do: "system network edit", In: "config:\n  dns:\n    nameservers: [nowhere]\n", Err: "config.dns.nameservers[0]"},
		{Do: "system network edit", In: changed},
		{Do: "system network show", Out: `confirmed\.example\.net`},
		{Do: "system network confirm"},
		{Do: "system network confirm", Err: "no change is waiting"},
		{Do: "system network show", Out: `confirmed\.example\.net`},
	} {
		if err := s.Run(ctx, person); err != nil {
			t.Error(err)
		}
	}
	if doc, _ := read(t, r, c); !slices.Equal(doc.Config.DNS.SearchDomains, []string{"confirmed.example.net"}) {
		t.Errorf("what was confirmed is %+v", doc.Config)
	}
}
