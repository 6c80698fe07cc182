package systest

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/incusos/incusos/internal/luks"
	"github.com/incusos/incusos/internal/uefi"
)

// Restart starts the machine anew with what its variables and its boot partition hold
// by now, and returns how root was unlocked, as the early boot says it: "tpm", or
// "recovery key" when only that would do. A machine without TPM measures nothing.
func (t *Trust) Restart() (unlockedBy string, err error) {
	if !t.files.Exists("/sys/class/tpm/tpm0") {
		return "", nil
	}
	events, kernel, err := t.measure()
	if err != nil {
		return "", err
	}
	if err := t.record(events, kernel); err != nil {
		return "", err
	}
	if t.root == "" {
		return "", nil
	}
	unlockedBy = "recovery key"
	if ok, err := t.unseals(events, kernel); err != nil {
		return "", err
	} else if ok {
		unlockedBy = "tpm"
	}
	early, err := json.Marshal(map[string]string{
		"mode": "run", "boot_disk": strings.TrimRight(t.root, "0123456789"), "root": t.root, "unlocked_by": unlockedBy, "lacks": t.lacks,
	})
	if err != nil {
		return "", err
	}
	return unlockedBy, t.write("/run/incus-os/early.json", early)
}

// measure returns what firmware and boot loader write down of a start, and the kernel
// image that is started: the newest.
func (t *Trust) measure() ([]uefi.Event, *uefi.Program, error) {
	events := []uefi.Event{hashed(0, 8, []byte("pretend firmware"))}
	var db []uefi.SignatureList
	for _, name := range []string{"SecureBoot", "PK", "KEK", "db", "dbx"} {
		v, err := uefi.SecureBootVariable(name)
		if err != nil {
			v = uefi.Variable{Name: name, Vendor: uefi.GlobalVariable}
		}
		value, err := t.files.ReadFile(efivarDir + name + "-" + string(v.Vendor))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, err
		}
		value = value[min(4, len(value)):]
		if name == "db" {
			if db, err = uefi.ParseSignatureLists(value); err != nil {
				return nil, nil, err
			}
		}
		data, err := uefi.VariableEvent{Vendor: v.Vendor, Name: name, Value: value}.Encode()
		if err != nil {
			return nil, nil, err
		}
		events = append(events, hashed(7, uefi.EventVariable, data))
	}
	separator := make([]byte, 4)
	events = append(events, hashed(0, uefi.EventSeparator, separator), hashed(7, uefi.EventSeparator, separator),
		hashed(4, uefi.EventEFIAction, []byte("Calling EFI Application from Boot Option")), hashed(4, uefi.EventSeparator, separator))
	kernels, err := t.files.ReadDir(ESP + "/EFI/Linux")
	if err != nil {
		return nil, nil, err
	}
	var last *uefi.Program
	vouched := make(map[string]bool)
	if t.open() {
		db = nil // nothing is asked for
	}
	for _, name := range []string{loaderEFI, "/EFI/Linux/" + kernels[len(kernels)-1].Name()} {
		p, started, err := t.start(name, db, vouched)
		if err != nil {
			return nil, nil, err
		}
		events, last = append(events, started...), p
	}
	if t.open() {
		kernel := hashed(4, uefi.EventApplication, uefi.ImageEvent{Payload: true}.Encode())
		if kernel.Digest, err = uefi.Payload(last); err != nil {
			return nil, nil, err
		}
		events = append(events, kernel)
	}
	events = append(events, t.also...)
	return append(events, hashed(11, uefi.EventIPL, []byte(".linux\x00"))), last, nil
}

func hashed(pcr int, kind uefi.EventType, data []byte) uefi.Event {
	return uefi.Event{PCR: pcr, Type: kind, Digest: sha256.Sum256(data), Data: data}
}

// start returns what starting a program leaves in the log: the entry of db that
// vouches for it, unless that is there, and the program.
func (t *Trust) start(name string, db []uefi.SignatureList, vouched map[string]bool) (*uefi.Program, []uefi.Event, error) {
	content, err := t.files.ReadFile(ESP + name)
	if err != nil {
		return nil, nil, err
	}
	p, err := uefi.OpenProgram(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		return nil, nil, err
	}
	digest, err := p.Authenticode()
	if err != nil {
		return nil, nil, err
	}
	signers, err := p.Signers()
	if err != nil {
		return nil, nil, err
	}
	var events []uefi.Event
	entry, err := voucher(db, signers)
	if err == nil && entry != nil && !vouched[string(entry)] {
		vouched[string(entry)] = true
		var data []byte
		data, err = uefi.VariableEvent{Vendor: uefi.ImageSecurityDatabase, Name: "db", Value: entry}.Encode()
		events = append(events, hashed(7, uefi.EventAuthority, data))
	}
	started := hashed(4, uefi.EventApplication, uefi.ImageEvent{Path: strings.ReplaceAll(name, "/", `\`), OnDisk: true}.Encode())
	started.Digest = digest
	return p, append(events, started), err
}

// voucher returns the EFI_SIGNATURE_DATA of the first signer that db has.
func voucher(db []uefi.SignatureList, signers []*x509.Certificate) ([]byte, error) {
	for _, l := range db {
		for _, s := range l.Signatures {
			if slices.ContainsFunc(signers, func(c *x509.Certificate) bool { return bytes.Equal(c.Raw, s.Data) }) {
				const header = 28
				list, err := uefi.EncodeSignatureLists([]uefi.SignatureList{{Type: l.Type, Signatures: []uefi.Signature{s}}})
				return list[min(header, len(list)):], err
			}
		}
	}
	return nil, nil
}

// record writes what the kernel and systemd show of a start.
func (t *Trust) record(events []uefi.Event, kernel *uefi.Program) error {
	log := "/sys/kernel/security/tpm0/binary_bios_measurements"
	if t.lacks == "tpm" {
		log = "/run/incus-os/measured.log" // the early boot writes it
	}
	if err := t.write(log, uefi.EncodeEventLog(events)); err != nil {
		return err
	}
	eleven, err := uefi.MeasureUKI(kernel, uefi.PhaseInitrd)
	if err != nil {
		return err
	}
	for i := range 24 {
		value := uefi.ReplayPCR(events, i)
		if i == 11 {
			value = eleven
		}
		if err := t.write(fmt.Sprintf("/sys/class/tpm/tpm0/pcr-sha256/%d", i), fmt.Appendf(nil, "%X\n", value)); err != nil {
			return err
		}
	}
	key, err1 := kernel.Text(".pcrpkey", 1<<16)
	signature, err2 := kernel.Text(".pcrsig", 1<<16)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	return errors.Join(t.write("/run/systemd/tpm2-pcr-public-key.pem", key), t.write("/run/systemd/tpm2-pcr-signature.json", signature))
}

// unseals reports whether the TPM gives the key of root away in the initrd of a
// start.
func (t *Trust) unseals(events []uefi.Event, kernel *uefi.Program) (bool, error) {
	eleven, err := uefi.MeasureUKI(kernel, uefi.PhaseInitrd)
	if err != nil {
		return false, err
	}
	policies, err := uefi.SignedPolicies(kernel)
	if err != nil {
		return false, err
	}
	h, secrets, err := t.header()
	if err != nil {
		return false, nil //nolint:nilerr // before the first boot
	}
	// In the initrd, before root is open, PCR 15 holds nothing.
	values := make(map[int][32]byte)
	for pcr := range 24 {
		values[pcr] = uefi.ReplayPCR(events, pcr)
	}
	values[11] = eleven
	for _, token := range h.TPM2Tokens() {
		policy, key, err := reckon(token.TPM2, values)
		if err != nil {
			return false, err
		}
		vouched := key == nil || slices.ContainsFunc(policies, func(p uefi.SignedPolicy) bool { return p.Allows(eleven, key) })
		if bytes.Equal(token.TPM2.PolicyHash, policy[:]) && vouched && t.gives(token, secrets) {
			return true, nil
		}
	}
	return false, nil
}

// reckon returns the policy of a binding to what registers hold, and the key that has
// to vouch for PCR 11 besides, if there is one.
func reckon(b luks.TPM2, values map[int][32]byte) ([32]byte, *rsa.PublicKey, error) {
	policy := uefi.PCRPolicy{}
	var key *rsa.PublicKey
	if len(b.PublicKey) > 0 {
		var err error
		if key, err = uefi.PublicKey(b.PublicKey); err != nil {
			return [32]byte{}, nil, err
		}
		if policy, err = policy.Authorized(key); err != nil {
			return [32]byte{}, nil, err
		}
	}
	literal := make(map[int][32]byte)
	for _, n := range b.PCRs {
		literal[n] = values[n]
	}
	policy = policy.PCRs(literal)
	if b.PIN {
		policy = policy.AuthValue()
	}
	return policy.Digest(), key, nil
}
