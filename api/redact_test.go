package api_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/api"
)

func TestRedactReplacesSecretsWhereverTheyAre(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	doc := struct {
		Name   string                    `json:"name"`
		Keys   []api.Secret              `json:"keys"`
		ByName map[string]*api.Secret    `json:"by_name"`
		Inner  *struct{ Key api.Secret } `json:"inner"`
		Empty  api.Secret                `json:"empty"`
		Gone   api.Secret                `json:"gone,omitempty"`
		When   *time.Time                `json:"when"`
		Any    any                       `json:"any"`
	}{
		Name: "n", Keys: []api.Secret{"hush"}, ByName: map[string]*api.Secret{"a": ptr(api.Secret("hush"))},
		Inner: &struct{ Key api.Secret }{"hush"}, When: &now, Any: api.Secret("hush"),
	}
	got, err := json.Marshal(api.Redact(doc))
	if err != nil || strings.Contains(string(got), "hush") {
		t.Errorf("Redact() = %s, %v", got, err)
	}
	const want = `{"any":"(secret)","by_name":{"a":"(secret)"},"empty":"","inner":{"Key":"(secret)"},"keys":["(secret)"],"name":"n","when":"2026-01-01T00:00:00Z"}`
	if strings.ReplaceAll(string(got), redactedWord(t), "(secret)") != want {
		t.Errorf("Redact() = %s, want %s", got, want)
	}
}

func redactedWord(t *testing.T) string {
	t.Helper()
	return api.Secret("x").String()
}

func ptr[T any](v T) *T { return &v }
