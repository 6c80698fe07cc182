package api_test

import (
	"testing"

	"github.com/incusos/incusos/api"
)

func TestScrubSchedule(t *testing.T) {
	tests := map[string]bool{
		"":                     true,
		"0 4 * * 0":            true,
		"*/15 1-5,23 * 1,12 7": true,
		"0  4 * *  0":          true,
		"0 4 * *":              false,
		"0 4 * * 0 root":       false,
		"60 4 * * 0":           false,
		"0 5-1 * * 0":          false,
		"0 4 0 * 0":            false,
		"*/0 4 * * 0":          false,
		"0 4 * jan 0":          false,
		"-1 4 * * 0":           false,
		"0 4, * * 0":           false,
	}
	for schedule, valid := range tests {
		err := api.SystemStorageConfig{ScrubSchedule: schedule}.Validate()
		if want := map[bool]string{false: "scrub_schedule"}[valid]; blamed(err) != want {
			t.Errorf("schedule %q: %v, want field %q blamed", schedule, err, want)
		}
	}
}
