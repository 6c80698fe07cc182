package network_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/network"
)

var update = flag.Bool("update", false, "write what is rendered to testdata/render")

// given is a machine of two cards.
func given() network.Given {
	const key = "QAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
	return network.Given{
		Cards: map[string]string{
			"02:00:00:00:00:01": "02:00:00:00:00:01", "enp1s0": "02:00:00:00:00:01",
			"02:00:00:00:00:02": "02:00:00:00:00:02", "enp2s0": "02:00:00:00:00:02",
		},
		Keys: map[string]api.Secret{"wg0": key},
	}
}

// TestRender compares what configurations become with the files beside them.
func TestRender(t *testing.T) {
	inputs, err := filepath.Glob("testdata/render/*.json")
	if err != nil || len(inputs) < 6 {
		t.Fatalf("found %d configurations, %v", len(inputs), err)
	}
	for _, input := range inputs {
		t.Run(strings.TrimSuffix(filepath.Base(input), ".json"), func(t *testing.T) {
			got := listing(network.Render(read(t, input), given()))
			golden := strings.TrimSuffix(input, ".json") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("rendered (-want +got); if that is right, run the test with -update:\n%s", diff)
			}
		})
	}
}

func read(t *testing.T, name string) (cfg api.NetworkConfig) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&cfg); err != nil {
		t.Fatal(err)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func listing(files map[string]network.File) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		secret := ""
		if files[name].Secret {
			secret = " (secret)"
		}
		fmt.Fprintf(&b, "-- %s%s --\n%s", name, secret, files[name].Content)
	}
	return b.String()
}

func TestEveryModeOfABondIsRendered(t *testing.T) {
	for _, mode := range strings.Fields("balance-rr active-backup balance-xor broadcast 802.3ad balance-tlb balance-alb") {
		cfg := api.NetworkConfig{Bonds: []api.NetworkBond{{Name: "b", Mode: mode, Members: []string{"02:00:00:00:00:01"}}}}
		if err := cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		got := network.Render(cfg, given())["/run/systemd/network/20-incus-os-_bb.netdev"].Content
		if !strings.Contains(got, "\nMode="+mode+"\n") || strings.Contains(got, "LACP") != (mode == "802.3ad") {
			t.Errorf("%s: %s", mode, got)
		}
	}
}

func TestNamesFitTheKernel(t *testing.T) {
	cfg := api.NetworkConfig{Interfaces: []api.NetworkInterface{{Name: "thirteenchars", Hwaddr: "enp1s0"}}}
	for name, f := range network.Render(cfg, given()) {
		for line := range strings.Lines(f.Content) {
			if device, ok := strings.CutPrefix(strings.TrimSpace(line), "Name="); ok && len(device) > 15 {
				t.Errorf("%s: %q has more than 15 characters", name, device)
			}
		}
	}
}
