package api

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

// SystemSecurity is the document at /os/1.0/system/security.
type SystemSecurity struct {
	Config SystemSecurityConfig `json:"config"`
	State  SystemSecurityState  `json:"state"`
}

// SystemSecurityConfig is what the operator decides about trust and keys.
type SystemSecurityConfig struct {
	CustomCACerts          []string `json:"custom_ca_certs,omitempty"` // PEM, one certificate each
	EncryptionRecoveryKeys []Secret `json:"encryption_recovery_keys"`  // each unlocks the system's volumes when the TPM does not
}

// SystemSecurityState is what the machine reports about trust and keys.
type SystemSecurityState struct {
	EncryptedVolumes                []EncryptedVolume       `json:"encrypted_volumes"`
	EncryptionRecoveryKeysRetrieved bool                    `json:"encryption_recovery_keys_retrieved"` // somebody says they wrote them down
	DriveRecoveryKeys               map[string]Secret       `json:"drive_recovery_keys,omitempty"`      // base64, by drive id
	PoolRecoveryKeys                map[string]Secret       `json:"pool_recovery_keys"`                 // base64, by pool name
	SecureBootCertificates          []SecureBootCertificate `json:"secure_boot_certificates"`
	SecureBootEnabled               bool                    `json:"secure_boot_enabled"`
	SystemStateIsTrusted            bool                    `json:"system_state_is_trusted"`
	SystemStateStatus               string                  `json:"system_state_status"` // why it is, or is not
	TPMStatus                       TPMStatus               `json:"tpm_status"`
	TPMPublicKey                    string                  `json:"tpm_public_key,omitempty"` // PEM

	// TPMPIN says that a PIN is asked for at each start. Ours: upstream has no such field.
	TPMPIN bool `json:"tpm_pin,omitempty"`
}

// A SecurityPIN is the body of :set-pin, and of :tpm-rebind on a machine that asks for a
// PIN.
type SecurityPIN struct {
	PIN Secret `json:"pin"` // 6 to 64 letters, digits and signs
}

// A TPMStatus says how far the TPM can be relied on.
type TPMStatus string

const (
	TPMOK          TPMStatus = "ok"           // a TPM of the machine, in the expected state
	TPMMismatch    TPMStatus = "pcr mismatch" // the next boot will measure something else; restart to settle it
	TPMSoftware    TPMStatus = "swtpm"        // emulated by the system itself; protects nothing from its owner
	TPMUnavailable TPMStatus = "none"         // ours: no TPM at all
)

// An EncryptedVolume is a volume of the system and how it was unlocked.
type EncryptedVolume struct {
	Volume string `json:"volume"` // "root"
	State  string `json:"state"`  // such as "unlocked (TPM)"
}

// A SecureBootCertificate is a certificate the firmware trusts.
type SecureBootCertificate struct {
	Type        string `json:"type"`        // "PK", "KEK", "db" or "dbx"
	Fingerprint string `json:"fingerprint"` // SHA-256 of the DER form, hexadecimal
	Subject     string `json:"subject"`
	Issuer      string `json:"issuer"`
}

// Validate reports the first problem in c that can be seen from c alone.
func (c SystemSecurityConfig) Validate() error {
	if err := c.checkCertificates(); err != nil {
		return err
	}
	if len(c.EncryptionRecoveryKeys) == 0 {
		return Fieldf("encryption_recovery_keys", "is empty; want at least one key, or a machine whose TPM is lost is lost with it")
	}
	for i, key := range c.EncryptionRecoveryKeys {
		if strings.TrimSpace(string(key)) == "" {
			return Fieldf(fmt.Sprintf("encryption_recovery_keys[%d]", i), "is empty")
		}
	}
	return nil
}

func (c SystemSecurityConfig) checkCertificates() error {
	for i, cert := range c.CustomCACerts {
		if err := checkCertificate(cert); err != nil {
			return Fieldf(fmt.Sprintf("custom_ca_certs[%d]", i), "%v; want one certificate in PEM", err)
		}
	}
	return nil
}

func checkCertificate(text string) error {
	block, rest := pem.Decode([]byte(text))
	if block == nil {
		return errors.New("not PEM")
	}
	if block.Type != "CERTIFICATE" {
		return fmt.Errorf("a %s", strings.ToLower(block.Type))
	}
	if strings.TrimSpace(string(rest)) != "" {
		return errors.New("something follows the certificate")
	}
	_, err := x509.ParseCertificate(block.Bytes)
	return err
}

// redacted is what is shown of a Secret.
const redacted = "(secret)"

// A Secret is text that goes over the API and into documents, and nowhere else:
// formatting or logging one, alone or inside a document, does not show it.
type Secret string

// String implements fmt.Stringer.
func (Secret) String() string { return redacted }

// GoString implements fmt.GoStringer.
func (Secret) GoString() string { return redacted }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }
