package backup

import (
	"bytes"
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/incusos/incusos/internal/sys/systest"
)

// Whichever effect fails, in the restore or at the start after it: the machine
// has all of the old or all of the new, and a later restore works.
func TestCutAnywhereIsUndoneOrFinished(t *testing.T) {
	before := map[string]string{"network.json": document(`{"dns":{"hostname":"two"}}`), "security.json": document(`{}`), "audit.log": "a\n"}
	backup := map[string]string{"network.json": document(`{"dns":{"hostname":"one"}}`), "storage.json": document(`{}`), "zpool.local.key": keyOne}
	after := map[string]string{"audit.log": "a\n"}
	maps.Copy(after, backup)
	archive := packed(t, backup)
	rig := machine(t, nil)
	for _, once := range []bool{true, false} {
		for at := 1; ; at++ {
			if err := rig.Host.Files.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			fill(t, rig.Host.Files, before)
			cut := (&systest.Cutter{At: at, Power: !once}).Host(rig.Host)
			err := New(cut, options()).Restore(t.Context(), bytes.NewReader(archive), nil)
			staging := err != nil
			if !staging {
				err = Finish(cut.Files)
			}
			if err == nil {
				if at < 12 {
					t.Errorf("only %d effects were seen", at)
				}
				break
			}
			restart(t, rig)
			got := held(t, rig.Host.Files)
			if isNew := cmp.Equal(after, got); !isNew && (!staging || !cmp.Equal(before, got)) {
				t.Errorf("cut at effect %d (once: %v), staging %v: %v\n%s", at, once, staging, err, cmp.Diff(after, got))
			}
			if err := New(rig.Host, options()).Restore(t.Context(), bytes.NewReader(archive), nil); err != nil {
				t.Errorf("cut at effect %d, then again: %v", at, err)
			}
			restart(t, rig)
			if diff := cmp.Diff(after, held(t, rig.Host.Files)); diff != "" {
				t.Errorf("cut at effect %d, then again (-want +got):\n%s", at, diff)
			}
		}
	}
}
