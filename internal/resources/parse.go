package resources

import (
	"strconv"
	"strings"
)

// number reads a number; 0 if it is none, or below 0, as where the kernel says
// that it does not know.
func number(s string) uint64 {
	n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 63)
	if err != nil {
		return 0
	}
	return n
}

// mostNumbers is how many numbers a list of them may stand for.
const mostNumbers = 1 << 16

// numbers reads a list such as "0-3,8" (kernel documentation,
// admin-guide/kernel-parameters, cpu lists).
func numbers(s string) map[uint64]bool {
	out := make(map[uint64]bool)
	for part := range strings.SplitSeq(strings.TrimSpace(s), ",") {
		first, last, isRange := strings.Cut(part, "-")
		if first == "" {
			continue
		}
		if !isRange {
			last = first
		}
		for n := number(first); n <= number(last) && len(out) < mostNumbers; n++ {
			out[n] = true
		}
	}
	return out
}

// sized reads a size such as "32K", in bytes.
func sized(s string) uint64 {
	unit := uint64(1)
	digits := strings.TrimRight(s, "KMG")
	switch strings.TrimPrefix(s, digits) {
	case "K":
		unit = 1 << 10
	case "M":
		unit = 1 << 20
	case "G":
		unit = 1 << 30
	}
	n := number(digits)
	if n > 1<<63/unit {
		return 0
	}
	return n * unit
}

// A meminfo is what /proc/meminfo says, and the file of the same name of a NUMA
// node, by its names: bytes, or numbers of pages.
type meminfo map[string]uint64

func parseMeminfo(text string) meminfo {
	out := make(meminfo)
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(line, ":")
		fields := strings.Fields(value)
		if !ok || len(fields) == 0 {
			continue
		}
		words := strings.Fields(key) // "Node 0 MemTotal"
		if len(words) == 0 {
			continue
		}
		n := number(fields[0])
		if len(fields) > 1 && fields[1] == "kB" && n < 1<<53 {
			n <<= 10
		}
		out[words[len(words)-1]] = n
	}
	return out
}

// used returns the memory that could not be given to others at once.
func (m meminfo) used() uint64 {
	free, ok := m["MemAvailable"]
	if !ok { // of a node: what is free, and what was only read
		free = m["MemFree"] + m["FilePages"] + m["SReclaimable"]
	}
	return m["MemTotal"] - min(free, m["MemTotal"])
}

// A cpuinfo is what /proc/cpuinfo says of one CPU, by its names.
type cpuinfo map[string]string

func parseCPUinfo(text string) map[uint64]cpuinfo {
	out := make(map[uint64]cpuinfo)
	current := cpuinfo{}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if key == "processor" {
			current = cpuinfo{}
			out[number(value)] = current
		}
		current[key] = value
	}
	return out
}

// addressSizes reads "48 bits physical, 47 bits virtual".
func addressSizes(s string) (physical, virtual uint64) {
	for part := range strings.SplitSeq(s, ",") {
		switch f := strings.Fields(part); {
		case len(f) != 3 || f[1] != "bits":
		case f[2] == "physical":
			physical = number(f[0])
		case f[2] == "virtual":
			virtual = number(f[0])
		}
	}
	return physical, virtual
}

// pciAddress reports whether s is one, such as "0000:00:1f.2".
func pciAddress(s string) bool {
	parts := strings.FieldsFunc(s, func(c rune) bool { return c == ':' || c == '.' })
	if len(parts) != 4 || len(parts[0]) < 4 || len(parts[1]) != 2 || len(parts[2]) != 2 || len(parts[3]) != 1 {
		return false
	}
	return s == parts[0]+":"+parts[1]+":"+parts[2]+"."+parts[3] && strings.Trim(strings.Join(parts, ""), "0123456789abcdef") == ""
}

// loadAverages reads /proc/loadavg: three means, "running/all" processes, and the
// newest one.
func loadAverages(s string) (means [3]float64, processes int) {
	f := strings.Fields(s)
	if len(f) < 4 {
		return means, 0
	}
	for i := range means {
		if v, err := strconv.ParseFloat(f[i], 64); err == nil && v >= 0 && v < 1e9 {
			means[i] = v
		}
	}
	_, all, _ := strings.Cut(f[3], "/")
	return means, int(number(all)) //nolint:gosec // at most 63 bits
}
