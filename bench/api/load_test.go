package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/incusos/incusos/internal/sys/systest"
)

func TestPercentiles(t *testing.T) {
	var m measure
	for i := range 200 {
		m.times = append(m.times, time.Duration(i+1)*time.Millisecond)
	}
	for p, want := range map[int]time.Duration{50: 100 * time.Millisecond, 99: 198 * time.Millisecond, 100: 200 * time.Millisecond} {
		if got := m.percentile(p); got != want {
			t.Errorf("percentile(%d) = %v, want %v", p, got, want)
		}
	}
}

func TestTheMachineCanBePretended(t *testing.T) {
	b, err := json.Marshal(machine(100, 20))
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "machine.json")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := systest.ReadMachine(name)
	if err != nil || len(m.Drives) != 100 || len(m.NICs) != 20 {
		t.Errorf("the machine has %d drives and %d cards, %v", len(m.Drives), len(m.NICs), err)
	}
}
