package daemon_test

import (
	"bytes"
	"testing"

	"github.com/incusos/incusos/internal/console"
	"github.com/incusos/incusos/internal/daemon"
	"github.com/incusos/incusos/internal/sys/systest"
)

// The seed is taken off the disk once everything in it was applied, and not while
// somebody may still have to read it.
func TestTheSeedLeavesTheDiskOnceItIsApplied(t *testing.T) {
	const secret = "a-token-of-the-provider"
	for name, up := range map[string]bool{"set up": true, "not yet": false} {
		t.Run(name, func(t *testing.T) {
			rig := machine(t)
			if err := systest.WriteSeed(rig.Host.Files, map[string]string{"provider.yaml": "config: {token: " + secret + "}\n"}); err != nil {
				t.Fatal(err)
			}
			o := daemon.Wire(rig.Host, console.New(rig.Host.Files), func() (daemon.First, error) { return daemon.First{}, nil })
			if up {
				m := start(t, rig, func(*daemon.Options) {})
				m.waitFor(readyLine)
				m.stop(nil)
			}
			for _, a := range o.Areas {
				if a.Name() == "seed" && !up {
					if err := a.Reconcile(t.Context()); err != nil {
						t.Error(err)
					}
				}
			}
			f, err := rig.Host.Files.Open("/dev/disk/by-partlabel/seed-data")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			head := make([]byte, 64<<10)
			if _, err := f.Read(head); err != nil {
				t.Fatal(err)
			}
			if clear := bytes.Contains(head, []byte(secret)); clear == up {
				t.Errorf("the secret is on the disk in the clear: %v", clear)
			}
		})
	}
}
