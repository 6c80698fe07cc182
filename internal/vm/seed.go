package vm

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// WriteSeed writes the seed of a machine that installs itself without asking
// and lets the bearer of a certificate use its Incus.
func WriteSeed(dir string, certificate []byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("writing the seed: %w", err)
	}
	for name, text := range sections(certificate) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return fmt.Errorf("writing the seed: %w", err)
		}
	}
	return nil
}

func sections(certificate []byte) map[string]string {
	pem := strings.ReplaceAll(string(bytes.TrimSpace(certificate)), "\n", "\n        ")
	return map[string]string{
		"install.yaml":      "version: \"1\"\n",
		"applications.yaml": "version: \"1\"\napplications:\n  - name: incus\n",
		"incus.yaml": `version: "1"
apply_defaults: true
preseed:
  certificates:
    - name: operator
      type: client
      certificate: |
        ` + pem + "\n",
	}
}
