package systest

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-tpm/tpm2"

	"github.com/incusos/incusos/internal/sys"
)

// Where a TPM in software keeps what it is, while it runs.
const softwareState = "/run/incus-os/swtpm/tpm2-00.permall"

// damagedState is what no TPM in software makes anything of.
const damagedState = "damaged"

// NewSoftwareTPM has the unit of the TPM in software give a rig without one a TPM: the one
// whose state is in memory, or a new one.
func NewSoftwareTPM(rig *Rig) {
	files, made := rig.Host.Files, 0
	rig.Units.Model("incus-os-swtpm.service", func() error {
		state, err := files.ReadFile(softwareState)
		if err != nil {
			made++
			state = fmt.Appendf(nil, "pretend TPM %d\n", made)
			err = files.WriteFile(softwareState, state, 0o600)
		}
		if err != nil || string(state) == damagedState {
			return errors.Join(err, errors.New("incus-os-swtpm.service failed"))
		}
		seed, _, _ := strings.Cut(string(state), "\n")
		all := []error{
			files.WriteFile("/sys/class/tpm/tpm0/tpm_version_major", []byte("2\n"), 0o600),
			files.WriteFile("/dev/tpmrm0", []byte(seed), 0o600),
		}
		for i := range 24 {
			all = append(all, files.WriteFile(registerFile(i), []byte(strings.Repeat("00", sha256.Size)+"\n"), 0o600))
		}
		return errors.Join(all...)
	}, func() error {
		return errors.Join(files.RemoveAll("/sys/class/tpm/tpm0"), files.RemoveAll("/dev/tpmrm0"))
	})
}

func registerFile(pcr int) string { return fmt.Sprintf("/sys/class/tpm/tpm0/pcr-sha256/%d", pcr) }

// extend changes what the kernel shows of a register.
func (t *tpmConn) extend(pcr uint32, params []byte) error {
	digests, err := tpm2.Unmarshal[tpm2.TPMLDigestValues](params)
	if err != nil || pcr > 23 || len(digests.Digests) != 1 || digests.Digests[0].HashAlg != tpm2.TPMAlgSHA256 {
		return errors.Join(err, fmt.Errorf("PCR %d is to be extended; want one of 24, by one digest of SHA-256", pcr))
	}
	text, err := t.files.ReadFile(registerFile(int(pcr)))
	if err != nil {
		return err
	}
	value, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	sum := sha256.Sum256(slices.Concat(value, digests.Digests[0].Digest))
	return t.files.WriteFile(registerFile(int(pcr)), fmt.Appendf(nil, "%X\n", sum), 0o600)
}

// keep notes in what a TPM in software keeps that there is a key at a handle.
func (t *tpmConn) keep(handle uint32) error {
	state, err := t.files.ReadFile(softwareState)
	if err != nil {
		return err
	}
	return t.files.WriteFile(softwareState, fmt.Appendf(state, "key %08x\n", handle), 0o600)
}

// StartedImage has systemd-stub say which kernel image runs.
func StartedImage(files sys.Dir, name string) error {
	value := []byte{6, 0, 0, 0}
	for _, c := range strings.ReplaceAll(name, "/", `\`) + "\x00" {
		value = binary.LittleEndian.AppendUint16(value, uint16(c)) //nolint:gosec // names are ASCII
	}
	return files.WriteFile(efivarDir+"StubImageIdentifier-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f", value, 0o644)
}
