package seal

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/attest"
)

const (
	// systemLog is where systemd writes what it measures after the firmware
	// (systemd-pcrphase.service(8)).
	systemLog    = "/run/log/systemd/tpm2-measure.log"
	maxSystemLog = 1 << 20
)

// Attest has the TPM sign what is in its registers, for whoever asks with a nonce, and
// adds the logs that lead there. Nonce and credential are as they come with a request;
// the credential may be "".
func (s *Seal) Attest(_ context.Context, nonce, credential string) (a api.Attestation, err error) {
	n, err := attest.ParseNonce(nonce)
	if err != nil {
		return a, api.Errorf(api.Invalid, "%v", err)
	}
	c, err := attest.ParseCredential(credential)
	if err != nil {
		return a, api.Errorf(api.Invalid, "%v", err)
	}
	if !s.hasTPM() {
		return a, api.Errorf(api.Conflict, "there is no TPM 2.0; turn it on in the firmware setup")
	}
	if s.early().Lacks == NoTPM {
		return a, api.Errorf(api.Conflict, "the TPM of this machine is one in software, which anybody can have say anything: its word proves nothing to others")
	}
	s.tpmTurn.Lock()
	defer s.tpmTurn.Unlock()
	tpm, err := s.host.TPM.Open()
	if err != nil {
		return a, err
	}
	a, err = attest.Ask(tpm, n, c)
	if err = errors.Join(err, tpm.Close()); err != nil {
		return a, fmt.Errorf("asking the TPM: %w", err)
	}
	return a, s.logs(&a)
}

// logs adds what leads to the registers. They are read after the quote: what was
// measured in between shows as a difference, and is gone the next time.
func (s *Seal) logs(a *api.Attestation) (err error) {
	for _, pcr := range attest.PCRs() {
		value, err := register(s.host.Files, pcr)
		if err != nil {
			return err
		}
		a.PCRs = append(a.PCRs, api.AttestedPCR{PCR: pcr, Value: hex.EncodeToString(value[:])})
	}
	if a.EventLog, err = readAtMost(s.host.Files, measurements, maxLog); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text, err := readAtMost(s.host.Files, systemLog, maxSystemLog)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	a.SystemLog = string(text)
	return nil
}
