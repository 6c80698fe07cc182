package systest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"embed"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/incusos/incusos/internal/luks"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/uefi"
)

//go:embed pretend
var pretended embed.FS

// Where a pretend machine has what it starts. The boot partition is seen there once
// it is mounted.
const (
	ESP       = "/run/incus-os/esp"
	loaderEFI = "/EFI/BOOT/BOOTX64.EFI"
	kernelEFI = "/EFI/Linux/IncusOS_202601010000.efi"
	efivarDir = "/sys/firmware/efi/efivars/"
)

// Trust models what a machine trusts and is measured by: firmware with Secure Boot
// variables, programs on the boot partition, the event log and registers that come of
// starting them, and an encrypted root with its key in a TPM.
type Trust struct {
	files sys.Dir
	root  string // device of the root partition; "" without one

	mu  sync.Mutex
	pin string // what is typed when a PIN is asked for
}

// NewTrust gives rig the model, starts the machine once, and makes what the first
// boot of a machine makes: root, bound to the TPM and with a recovery key.
func NewTrust(rig *Rig) (*Trust, error) {
	t := &Trust{files: rig.Host.Files}
	disks, err := sys.Disks(t.files)
	if err != nil {
		return nil, err
	}
	for _, d := range disks {
		if p, ok := d.Partition("root"); ok {
			t.root = p.Path
		}
	}
	rig.Programs.Model("systemd-cryptenroll", t.cryptenroll)
	rig.kernel.firmware = t.update
	if err := errors.Join(t.firmware(), t.install()); err != nil {
		return nil, err
	}
	_, err = t.Restart()
	if err == nil && t.root != "" && t.files.Exists("/dev/tpmrm0") {
		err = t.firstBoot()
	}
	if err == nil {
		_, err = t.Restart()
	}
	return t, err
}

// PretendSigner returns a key of the trust root of pretend machines, and its
// certificate if there is one: "db", "KEK", or "pcr" without certificate.
func PretendSigner(name string) (uefi.Signer, error) {
	var s uefi.Signer
	text, err := pretended.ReadFile("pretend/" + name + ".key")
	if err != nil {
		return s, err
	}
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return s, err
	}
	s.Key = key.(crypto.Signer) //nolint:forcetypeassert // RSA keys are
	text, err = pretended.ReadFile("pretend/" + name + ".crt")
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	block, _ = pem.Decode(text)
	s.Certificate, err = x509.ParseCertificate(block.Bytes)
	return s, err
}

// firmware enrols the certificates of the trust root, unless they are there.
func (t *Trust) firmware() error {
	setup, err := t.files.ReadFile(efivarDir + "SetupMode-" + globalVariable)
	if err != nil || bytes.HasSuffix(setup, []byte{1}) {
		return nil //nolint:nilerr // no UEFI
	}
	for _, name := range []string{"PK", "KEK", "db"} {
		text, err := pretended.ReadFile("pretend/" + name + ".auth")
		if err != nil {
			return err
		}
		update, err := uefi.ParseUpdate(text)
		if err != nil {
			return err
		}
		if err := t.SetVariable(name, update.Payload); err != nil {
			return err
		}
	}
	return nil
}

// SetVariable gives a Secure Boot variable a value, as the firmware's setup can.
func (t *Trust) SetVariable(name string, value []byte) error {
	v, err := uefi.SecureBootVariable(name)
	if err != nil {
		v = uefi.Variable{Name: name, Vendor: uefi.GlobalVariable, Attributes: uefi.BootService | uefi.Runtime}
	}
	return t.write(efivarDir+v.Name+"-"+string(v.Vendor), append([]byte{byte(v.Attributes), 0, 0, 0}, value...))
}

// update takes a signed update of KEK, db or dbx as firmware does: of whoever may sign
// it, and leaving out what is there.
func (t *Trust) update(file string, content []byte) error {
	name, _, _ := strings.Cut(file, "-")
	v, err := uefi.SecureBootVariable(name)
	if err != nil || name == "PK" || len(content) < 4 {
		return syscall.EACCES
	}
	by, err := uefi.SecureBootVariable(map[string]string{"KEK": "PK", "db": "KEK", "dbx": "KEK"}[name])
	if err != nil {
		return err
	}
	u, err := uefi.ParseUpdate(content[4:])
	if err != nil {
		return syscall.EINVAL
	}
	trusted, err := t.lists(by)
	if err != nil {
		return err
	}
	if content[0] != byte(v.Appending().Attributes) || u.Verify(v.Appending(), uefi.X509Certificates(trusted)) != nil {
		return syscall.EACCES
	}
	have, err := t.lists(v)
	if err != nil {
		return err
	}
	more, err := uefi.ParseSignatureLists(u.Payload)
	if err != nil {
		return syscall.EINVAL
	}
	value, err := uefi.EncodeSignatureLists(append(have, uefi.Missing(have, more)...))
	if err != nil {
		return err
	}
	return t.SetVariable(name, value)
}

// lists returns what a Secure Boot variable holds.
func (t *Trust) lists(v uefi.Variable) ([]uefi.SignatureList, error) {
	b, err := t.files.ReadFile(efivarDir + v.Name + "-" + string(v.Vendor))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return uefi.ParseSignatureLists(b[min(4, len(b)):])
}

// write puts a file in place as nothing that is tested does.
func (t *Trust) write(name string, content []byte) error {
	file := t.files.Path(name)
	if err := os.MkdirAll(path.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, content, 0o600)
}

// install puts boot loader, kernel image and the updates that enrol the trust root on
// the boot partition.
func (t *Trust) install() error {
	db, err := PretendSigner("db")
	if err != nil {
		return err
	}
	for _, name := range []string{"PK", "KEK", "db"} {
		text, err := pretended.ReadFile("pretend/" + name + ".auth")
		if err != nil {
			return err
		}
		if err := t.write(ESP+"/loader/keys/auto/"+name+".auth", text); err != nil {
			return err
		}
	}
	if err := t.PutLoader(db); err != nil {
		return err
	}
	return t.PutKernel("202601010000", db)
}

// PutLoader puts a boot loader in place that by has signed.
func (t *Trust) PutLoader(by ...uefi.Signer) error {
	b, err := uefi.EncodeProgram([]uefi.Part{{Name: ".text", Data: []byte("pretend boot loader")}}, by...)
	if err != nil {
		return err
	}
	return t.write(ESP+loaderEFI, b)
}

// PutKernel puts the kernel image of a version in place that by has signed, and whose
// value of PCR 11 the key pcr of the trust root has.
func (t *Trust) PutKernel(version string, by ...uefi.Signer) error {
	pcr, err := PretendSigner("pcr")
	if err != nil {
		return err
	}
	public, err := publicPEM(pcr)
	if err != nil {
		return err
	}
	parts := []uefi.Part{
		{Name: ".osrel", Data: []byte("ID=incusos\nIMAGE_ID=IncusOS\nIMAGE_VERSION=" + version + "\n")},
		{Name: ".cmdline", Data: []byte("rw usrhash=pretend")},
		{Name: ".linux", Data: []byte("pretend kernel " + version)},
		{Name: ".pcrpkey", Data: public},
	}
	b, err := uefi.EncodeProgram(parts)
	if err != nil {
		return err
	}
	p, err := uefi.OpenProgram(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return err
	}
	value, err := uefi.MeasureUKI(p, uefi.PhaseInitrd)
	if err != nil {
		return err
	}
	block, _ := pem.Decode(public)
	sum := sha256.Sum256(block.Bytes)
	signature, err := uefi.SignPolicy(value, pcr.Key, hex.EncodeToString(sum[:]))
	if err != nil {
		return err
	}
	if b, err = uefi.EncodeProgram(append(parts, uefi.Part{Name: ".pcrsig", Data: signature}), by...); err != nil {
		return err
	}
	return t.write(ESP+"/EFI/Linux/IncusOS_"+version+".efi", b)
}

func publicPEM(s uefi.Signer) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(s.Key.Public())
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), err
}

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
	early, err := json.Marshal(map[string]string{"mode": "run", "boot_disk": strings.TrimRight(t.root, "0123456789"), "root": t.root, "unlocked_by": unlockedBy})
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
	for _, name := range []string{loaderEFI, "/EFI/Linux/" + kernels[len(kernels)-1].Name()} {
		p, started, err := t.start(name, db, vouched)
		if err != nil {
			return nil, nil, err
		}
		events, last = append(events, started...), p
	}
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
	if err := t.write("/sys/kernel/security/tpm0/binary_bios_measurements", uefi.EncodeEventLog(events)); err != nil {
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
	values := map[int][32]byte{7: uefi.ReplayPCR(events, 7), 11: eleven, 15: {}}
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

// TypePIN says what somebody types when the machine asks for a PIN.
func (t *Trust) TypePIN(pin string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pin = pin
}

func (t *Trust) firstBoot() error {
	if _, _, err := t.header(); err == nil {
		return nil // an earlier start of the same machine
	}
	if err := t.save(newHeader(), map[string]string{}); err != nil {
		return err
	}
	ctx := context.Background()
	if _, err := t.cryptenroll(ctx, sys.Command("systemd-cryptenroll", "--tpm2-device=auto", "--tpm2-pcrs=7", "--pretend-first", t.root)); err != nil {
		return err
	}
	key, err := t.cryptenroll(ctx, sys.Command("systemd-cryptenroll", "--unlock-tpm2-device=auto", "--recovery-key", t.root))
	if err != nil {
		return err
	}
	return t.write("/var/lib/incus-os/recovery.root.key", key)
}
