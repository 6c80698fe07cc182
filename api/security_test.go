package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/incusos/incusos/api"
)

func TestSecurityValidate(t *testing.T) {
	keys := []api.Secret{"correct-horse-battery"}
	tests := map[string]struct {
		config api.SystemSecurityConfig
		field  string // "" means valid
	}{
		"one key":               {api.SystemSecurityConfig{EncryptionRecoveryKeys: keys}, ""},
		"no key":                {api.SystemSecurityConfig{}, "encryption_recovery_keys"},
		"a blank key":           {api.SystemSecurityConfig{EncryptionRecoveryKeys: []api.Secret{"a", " "}}, "encryption_recovery_keys[1]"},
		"text as a certificate": {api.SystemSecurityConfig{EncryptionRecoveryKeys: keys, CustomCACerts: []string{"hello"}}, "custom_ca_certs[0]"},
		"a key as a certificate": {api.SystemSecurityConfig{EncryptionRecoveryKeys: keys, CustomCACerts: []string{
			"-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"}}, "custom_ca_certs[0]"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if err := tt.config.Validate(); blamed(err) != tt.field {
				t.Errorf("Validate() = %v, want field %q blamed", err, tt.field)
			}
		})
	}
}

func TestSecretsAreOnlyInJSON(t *testing.T) {
	doc := api.SystemSecurity{Config: api.SystemSecurityConfig{EncryptionRecoveryKeys: []api.Secret{"hunter2"}}}
	doc.State.PoolRecoveryKeys = map[string]api.Secret{"local": "hunter2"}

	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "doc", doc, "key", doc.Config.EncryptionRecoveryKeys[0])
	for _, text := range []string{fmt.Sprint(doc), fmt.Sprintf("%+v", doc), fmt.Sprintf("%#v", doc), log.String()} {
		if strings.Contains(text, "hunter2") || !strings.Contains(text, "(secret)") {
			t.Errorf("formatted as %q", text)
		}
	}
	b, err := json.Marshal(doc)
	if err != nil || strings.Count(string(b), "hunter2") != 2 {
		t.Errorf("as JSON: %s, %v; want the key twice", b, err)
	}
}
