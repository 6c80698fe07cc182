package listener

import (
	"encoding/pem"

	"github.com/incusos/incusos/api"
)

// Seeded returns the configuration that lets in whom a seed has Incus trust with
// everything; nil if there is nobody. Clients that Incus restricts to projects
// are not among them, nor what is no certificate: Incus complains of that.
func Seeded(seed *api.SeedIncus) *api.SystemFallbackListenerConfig {
	if seed == nil {
		return nil
	}
	list, _ := seed.Preseed["certificates"].([]any)
	var config api.SystemFallbackListenerConfig
	for _, v := range list {
		if text := client(v); text != "" {
			config.TrustedClientCertificates = append(config.TrustedClientCertificates, text)
		}
	}
	if len(config.TrustedClientCertificates) == 0 || config.Validate() != nil {
		return nil
	}
	return &config
}

// client returns the certificate in an item of a preseed if it is that of a
// client which may do everything, else "".
func client(item any) string {
	fields, _ := item.(map[string]any)
	text, _ := fields["certificate"].(string)
	kind, given := fields["type"]
	restricted, limited := fields["restricted"]
	block, _ := pem.Decode([]byte(text))
	if block == nil || given && kind != "client" && kind != "" || limited && restricted != false {
		return ""
	}
	one := string(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}))
	if (api.SystemFallbackListenerConfig{TrustedClientCertificates: []string{one}}).Validate() != nil {
		return ""
	}
	return one
}
