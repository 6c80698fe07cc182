package uefi_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/incusos/incusos/internal/uefi"
)

// TestFirmwareLogs reads logs of real firmware that has started the system, each from a
// machine whose TPM vouched for the registers: the events in words, the registers, and
// that a start in which nothing changes is predicted to measure the same.
func TestFirmwareLogs(t *testing.T) {
	logs, err := filepath.Glob("testdata/firmware/*.log")
	if err != nil || len(logs) == 0 {
		t.Fatalf("%d logs, %v", len(logs), err)
	}
	for _, name := range logs {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".log"), func(t *testing.T) {
			log, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			events, err := uefi.ParseEventLog(log)
			if err != nil {
				t.Fatal(err)
			}
			known := strings.TrimSuffix(name, ".log") + ".txt"
			if *update {
				if err := os.WriteFile(known, []byte(said(events)), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(known)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), said(events)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got, err := uefi.PredictPCR7(events, uefi.NextBoot{}); err != nil || got.Value != uefi.ReplayPCR(events, 7) {
				t.Errorf("PCR 7 is predicted to be %x, %v; want %x", got.Value, err, uefi.ReplayPCR(events, 7))
			}
		})
	}
}

// said is what there is to say of a log.
func said(events []uefi.Event) string {
	var b strings.Builder
	for _, pcr := range []int{0, 1, 2, 3, 4, 5, 6, 7, 11, 12, 13} {
		fmt.Fprintf(&b, "PCR %d is %x\n", pcr, uefi.ReplayPCR(events, pcr))
	}
	for _, e := range events {
		fmt.Fprintf(&b, "%d %s: %s\n", e.PCR, e.Type, e.Describe())
	}
	return b.String()
}
