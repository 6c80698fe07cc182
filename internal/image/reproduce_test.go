package image

import (
	"strings"
	"testing"
)

func TestCompare(t *testing.T) {
	one := map[string]string{"usr.raw": "aaaaaaaaaaaaaaaaaaaa", "incus.raw": "bbbbbbbbbbbbbbbbbbbb"}
	tests := map[string]struct {
		second map[string]string
		differ bool
		report string
	}{
		"the same": {one, false, "identical bbbbbbbbbbbbbbbb incus.raw\nidentical aaaaaaaaaaaaaaaa usr.raw\n"},
		"one other": {map[string]string{"usr.raw": "cccccccccccccccccccc", "incus.raw": one["incus.raw"]}, true,
			"identical bbbbbbbbbbbbbbbb incus.raw\nDIFFERENT aaaaaaaaaaaaaaaa usr.raw\n"},
		"one missing": {map[string]string{"incus.raw": one["incus.raw"]}, true,
			"identical bbbbbbbbbbbbbbbb incus.raw\nDIFFERENT aaaaaaaaaaaaaaaa usr.raw\n"},
		"one more": {map[string]string{"usr.raw": one["usr.raw"], "incus.raw": one["incus.raw"], "more.raw": "d"}, true,
			"identical bbbbbbbbbbbbbbbb incus.raw\nidentical aaaaaaaaaaaaaaaa usr.raw\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var report strings.Builder
			differ, err := compare(one, tt.second, &report)
			if err != nil || differ != tt.differ || report.String() != tt.report {
				t.Errorf("compare() = %v, %v, printing\n%swant %v, printing\n%s", differ, err, report.String(), tt.differ, tt.report)
			}
		})
	}
}
