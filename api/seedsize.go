package api

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// ParseSize returns the number of bytes that s says: a whole number and a unit
// (B, kB, MB, GB, TB or KiB, MiB, GiB, TiB), such as "100GiB". Without a unit
// it is bytes.
func ParseSize(s string) (uint64, error) {
	digits := strings.TrimRight(s, "BkKMGTi ")
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is no size; want a whole number and a unit, such as %q", s, "100GiB")
	}
	factor, ok := unit(strings.TrimSpace(s[len(digits):]))
	if !ok {
		return 0, fmt.Errorf("%q has no known unit; want B, kB, MB, GB, TB, KiB, MiB, GiB or TiB", s)
	}
	over, size := bits.Mul64(n, factor)
	if over != 0 {
		return 0, fmt.Errorf("%q is more than there is; want less than 16777216TiB", s)
	}
	return size, nil
}

func unit(s string) (factor uint64, ok bool) {
	switch s {
	case "", "B":
		return 1, true
	case "kB":
		return 1e3, true
	case "MB":
		return 1e6, true
	case "GB":
		return 1e9, true
	case "TB":
		return 1e12, true
	case "KiB":
		return 1 << 10, true
	case "MiB":
		return 1 << 20, true
	case "GiB":
		return 1 << 30, true
	case "TiB":
		return 1 << 40, true
	}
	return 0, false
}
