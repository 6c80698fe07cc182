package attest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"

	"github.com/incusos/incusos/internal/uefi"
)

// Measurements are what a release leaves in the registers, as they are published beside
// it. All digests are SHA-256 in hexadecimal.
type Measurements struct {
	Version string `json:"version"`
	Loader  string `json:"loader,omitempty"` // Authenticode of systemd-boot, in PCR 4
	UKI     string `json:"uki"`              // Authenticode of the kernel image, in PCR 4
	Linux   string `json:"linux,omitempty"`  // Authenticode of the kernel in it, in PCR 4 where the firmware starts it
	PCR11   string `json:"pcr11"`            // once the kernel image is started, before any phase
}

const longestMeasurements = 64 << 10

// Measure reckons what a kernel image of size bytes, and a boot loader unless that is
// nil, leave in the registers.
func Measure(version string, uki io.ReaderAt, size int64, loader []byte) (Measurements, error) {
	m := Measurements{Version: version}
	p, err := uefi.OpenProgram(uki, size)
	if err != nil {
		return m, fmt.Errorf("the kernel image: %w", err)
	}
	if m.UKI, err = authenticode(p); err != nil {
		return m, fmt.Errorf("the kernel image: %w", err)
	}
	eleven, err := uefi.MeasureUKI(p)
	if err != nil {
		return m, err
	}
	m.PCR11 = hex.EncodeToString(eleven[:])
	if m.Linux, err = kernelOf(p); err != nil {
		return m, fmt.Errorf("the kernel in the kernel image: %w", err)
	}
	if loader == nil {
		return m, nil
	}
	if p, err = uefi.OpenProgram(bytes.NewReader(loader), int64(len(loader))); err == nil {
		m.Loader, err = authenticode(p)
	}
	if err != nil {
		return m, fmt.Errorf("the boot loader: %w", err)
	}
	return m, nil
}

func authenticode(p *uefi.Program) (string, error) {
	digest, err := p.Authenticode()
	return hex.EncodeToString(digest[:]), err
}

// kernelOf returns the digest of the section .linux, which is a program of its own; ""
// if it is none, as in tests.
func kernelOf(p *uefi.Program) (string, error) {
	const largest = 256 << 20
	s, ok := p.Section(".linux")
	if !ok {
		return "", nil
	}
	b, err := io.ReadAll(io.LimitReader(p.Reader(s), largest))
	if err != nil {
		return "", err
	}
	linux, err := uefi.OpenProgram(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return "", nil //nolint:nilerr // no program
	}
	return authenticode(linux)
}

// ParseMeasurements reads the JSON of Measurements.
func ParseMeasurements(text []byte) (Measurements, error) {
	var m Measurements
	if len(text) > longestMeasurements {
		return m, fmt.Errorf("%d bytes of measurements; want at most %d", len(text), longestMeasurements)
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("measurements: %w", err)
	}
	for name, digest := range map[string]string{"loader": m.Loader, "uki": m.UKI, "linux": m.Linux, "pcr11": m.PCR11} {
		optional := name == "loader" || name == "linux"
		if b, err := hex.DecodeString(digest); err != nil || len(b) != sha256.Size && !(optional && digest == "") {
			return m, fmt.Errorf("measurements: %s is %q; want a SHA-256 in hexadecimal digits", name, digest)
		}
	}
	return m, nil
}

// programs are the digests that PCR 4 may have of the release.
func (m Measurements) programs() []string {
	var all []string
	for _, digest := range []string{m.Loader, m.UKI, m.Linux} {
		if digest != "" {
			all = append(all, digest)
		}
	}
	return all
}
