package seal

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/uefi"
)

// State reports how trustworthy the machine is, and the keys to write down.
func (s *Seal) State() (api.SystemSecurityState, error) {
	secure, err := s.secureBoot()
	if err != nil {
		return api.SystemSecurityState{}, err
	}
	certificates, err := s.certificates()
	if err != nil {
		return api.SystemSecurityState{}, err
	}
	pools, err := s.keys("zpool.", "")
	if err != nil {
		return api.SystemSecurityState{}, err
	}
	drives, err := s.keys("luks.", "/dev/disk/by-id/")
	if err != nil {
		return api.SystemSecurityState{}, err
	}
	state := api.SystemSecurityState{
		EncryptedVolumes:                s.volumes(),
		EncryptionRecoveryKeysRetrieved: s.retrieved(),
		DriveRecoveryKeys:               drives,
		PoolRecoveryKeys:                pools,
		SecureBootCertificates:          certificates,
		SecureBootEnabled:               secure,
		TPMStatus:                       s.tpm(),
		TPMPIN:                          s.host.Files.Exists(pinFile),
	}
	state.SystemStateIsTrusted, state.SystemStateStatus, err = s.trust()
	return state, err
}

func (s *Seal) trust() (trusted bool, why string, err error) {
	doubts, err := s.doubts()
	if err != nil {
		return false, "", err
	}
	if len(doubts) == 0 {
		return true, trustedState, nil
	}
	var words []string
	for _, d := range doubts {
		words = append(words, d.what)
	}
	return false, strings.Join(words, ", "), nil
}

func (s *Seal) tpm() api.TPMStatus {
	switch {
	case !s.hasTPM():
		return api.TPMUnavailable
	case s.early().Lacks == NoTPM:
		return api.TPMSoftware
	case s.unlockedBy() == ByRecoveryKey && !s.host.Files.Exists(reboundFile), s.pending():
		return api.TPMMismatch
	}
	return api.TPMOK
}

// pending reports whether the next start is known to measure what root is not bound
// to. Where nothing is known nothing is said: the doctor explains that.
func (s *Seal) pending() bool {
	b, err := s.bound()
	if err != nil || len(b.header.TPM2Tokens()) == 0 || b.has(b.next, b.pin) {
		return false
	}
	return b.next.pcr11 != unknown || b.next != b.live
}

func (s *Seal) volumes() []api.EncryptedVolume {
	switch s.unlockedBy() {
	case ByTPM:
		if s.pending() {
			return []api.EncryptedVolume{{Volume: "root", State: "unlocked (TPM; PCR update pending)"}}
		}
		return []api.EncryptedVolume{{Volume: "root", State: "unlocked (TPM)"}}
	case ByRecoveryKey:
		return []api.EncryptedVolume{{Volume: "root", State: "unlocked (recovery passphrase)"}}
	}
	return []api.EncryptedVolume{}
}

// certificates lists what the firmware trusts and distrusts.
func (s *Seal) certificates() ([]api.SecureBootCertificate, error) {
	all := []api.SecureBootCertificate{}
	for _, v := range []struct {
		name   string
		vendor uefi.GUID
	}{
		{"PK", uefi.GlobalVariable}, {"KEK", uefi.GlobalVariable},
		{"db", uefi.ImageSecurityDatabase}, {"dbx", uefi.ImageSecurityDatabase},
	} {
		b, err := sys.ReadVariable(s.host.Files, v.name, string(v.vendor))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		lists, err := uefi.ParseSignatureLists(b)
		if err != nil {
			return nil, fmt.Errorf("reading the EFI variable %s: %w", v.name, err)
		}
		for _, c := range uefi.Certificates(v.name, lists) {
			all = append(all, api.SecureBootCertificate(c))
		}
	}
	return all, nil
}

// keys returns the keys in files PREFIX.NAME.key, in base64, by place and name: those of
// pools, and of drives that are encrypted each by itself.
func (s *Seal) keys(prefix, place string) (map[string]api.Secret, error) {
	keys := make(map[string]api.Secret)
	entries, err := s.host.Files.ReadDir(keyDir)
	if errors.Is(err, fs.ErrNotExist) {
		return keys, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the keys of pools and drives: %w", err)
	}
	for _, e := range entries {
		name, isOurs := strings.CutPrefix(e.Name(), prefix)
		name, isKey := strings.CutSuffix(name, ".key")
		if !isOurs || !isKey {
			continue
		}
		b, err := s.host.Files.ReadFile(keyDir + "/" + e.Name())
		if err != nil {
			return nil, fmt.Errorf("reading the key of %q: %w", name, err)
		}
		keys[place+name] = api.Secret(base64.StdEncoding.EncodeToString(b))
	}
	return keys, nil
}
