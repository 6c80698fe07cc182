package resources

import (
	"fmt"
	"maps"
	"slices"
	"testing"
)

func TestNumbers(t *testing.T) {
	for text, want := range map[string]string{
		"": "[]", "0": "[0]", "0-3,8": "[0 1 2 3 8]", " 2 , x": "[0 2]", "3-1": "[]", "-1": "[]", "1-": "[]",
	} {
		if got := fmt.Sprint(slices.Sorted(maps.Keys(numbers(text)))); got != want {
			t.Errorf("numbers(%q) = %s, want %s", text, got, want)
		}
	}
	if n := len(numbers("0-9223372036854775807")); n != mostNumbers {
		t.Errorf("a list without end has %d numbers", n)
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]uint64{"32K": 32 << 10, "8M": 8 << 20, "1G": 1 << 30, "512": 512, "": 0, "KK": 0, "x": 0, "9223372036854775807G": 0} {
		if got := sized(text); got != want {
			t.Errorf("sized(%q) = %d, want %d", text, got, want)
		}
	}
}

func TestPCIAddress(t *testing.T) {
	for text, want := range map[string]bool{
		"0000:00:1f.2": true, "10000:00:1f.2": true, "0000:00:1f": false, "pci0000:00": false, "0000.00.1f:2": false, "000g:00:1f.2": false, "": false,
	} {
		if pciAddress(text) != want {
			t.Errorf("pciAddress(%q) = %v", text, !want)
		}
	}
}

func TestUsedMemory(t *testing.T) {
	for text, want := range map[string]uint64{
		"MemTotal: 100 kB\nMemFree: 10 kB\nMemAvailable: 60 kB\n":         40 << 10,
		"Node 0 MemTotal: 100 kB\nNode 0 MemFree: 10 kB\nFilePages: 5 kB": 85 << 10,
		"MemTotal: 1 kB\nMemAvailable: 2 kB":                              0,
		"":                                                                0,
	} {
		if got := parseMeminfo(text).used(); got != want {
			t.Errorf("%q: %d used, want %d", text, got, want)
		}
	}
}

func FuzzParsers(f *testing.F) {
	f.Add("processor\t: 0\nmodel name\t: x\nflags\t: fpu hypervisor\n")
	f.Add("Node 0 MemTotal:       13068064 kB\nHugePages_Total:     3\n")
	f.Add("0.10 0.20 0.30 1/99 1234\n")
	f.Add("0-3,8,4294967296-9999999999999999")
	f.Add("48 bits physical, 47 bits virtual")
	f.Fuzz(func(t *testing.T, text string) {
		if n := len(numbers(text)); n > mostNumbers {
			t.Errorf("%d numbers", n)
		}
		if m := parseMeminfo(text); m.used() > m["MemTotal"] {
			t.Errorf("%d used of %d", m.used(), m["MemTotal"])
		}
		parseCPUinfo(text)
		addressSizes(text)
		sized(text)
		pciAddress(text)
		numbered(text)
		if _, n := loadAverages(text); n < 0 {
			t.Errorf("%d processes", n)
		}
	})
}
