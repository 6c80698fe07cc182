package systest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"embed"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"syscall"

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
	lacks string // as Machine has it; without Secure Boot firmware asks nobody who vouches, and systemd-stub has it start the kernel

	also []uefi.Event // what is measured besides

	mu  sync.Mutex
	pin string // what is typed when a PIN is asked for
}

// NewTrust gives rig the model, starts the machine once, and makes what the first
// boot of a machine makes: root, bound to the TPM and with a recovery key.
func NewTrust(rig *Rig) (*Trust, error) {
	t := &Trust{files: rig.Host.Files, lacks: rig.lacks}
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
	text, err := pretended.ReadFile("pretend/db.crt")
	if err != nil {
		return err
	}
	if err := t.write("/usr/lib/verity.d/incus-os.crt", text); err != nil {
		return err
	}
	if err := t.PutLoader(db); err != nil {
		return err
	}
	return t.PutKernel(firstVersion, db)
}

// PutLoader puts a boot loader in place that by has signed.
func (t *Trust) PutLoader(by ...uefi.Signer) error {
	b, err := uefi.EncodeProgram([]uefi.Part{{Name: ".text", Data: []byte("pretend boot loader")}}, by...)
	if err != nil {
		return err
	}
	return t.write(ESP+loaderEFI, b)
}

// PutKernel puts the kernel image of a version in place that by has signed.
func (t *Trust) PutKernel(version string, by ...uefi.Signer) error {
	b, err := KernelImage(version, "rw usrhash=pretend", by...)
	if err != nil {
		return err
	}
	return t.write(ESP+"/EFI/Linux/IncusOS_"+version+".efi", b)
}

// KernelImage returns the kernel image of a version that by has signed, and whose value
// of PCR 11 the key pcr of the trust root has.
func KernelImage(version, commandLine string, by ...uefi.Signer) ([]byte, error) {
	pcr, err := PretendSigner("pcr")
	if err != nil {
		return nil, err
	}
	public, err := publicPEM(pcr)
	if err != nil {
		return nil, err
	}
	kernel, err := uefi.EncodeProgram([]uefi.Part{{Name: ".text", Data: []byte("pretend kernel " + version)}})
	if err != nil {
		return nil, err
	}
	parts := []uefi.Part{
		{Name: ".osrel", Data: []byte("ID=incusos\nIMAGE_ID=IncusOS\nIMAGE_VERSION=" + version + "\n")},
		{Name: ".cmdline", Data: []byte(commandLine)},
		{Name: ".linux", Data: kernel},
		{Name: ".pcrpkey", Data: public},
	}
	b, err := uefi.EncodeProgram(parts)
	if err != nil {
		return nil, err
	}
	p, err := uefi.OpenProgram(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, err
	}
	value, err := uefi.MeasureUKI(p, uefi.PhaseInitrd)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(public)
	sum := sha256.Sum256(block.Bytes)
	signature, err := uefi.SignPolicy(value, pcr.Key, hex.EncodeToString(sum[:]))
	if err != nil {
		return nil, err
	}
	return uefi.EncodeProgram(append(parts, uefi.Part{Name: ".pcrsig", Data: signature}), by...)
}

// Measure has each start to come measure something more into a register, such as a
// driver that somebody added.
func (t *Trust) Measure(pcr int, data string) {
	t.also = append(t.also, hashed(pcr, uefi.EventAction, []byte(data)))
}

// TurnSecureBootOn has each start to come be one with Secure Boot.
func (t *Trust) TurnSecureBootOn() error {
	t.lacks = ""
	return t.write(efivarDir+"SecureBoot-"+globalVariable, []byte{6, 0, 0, 0, 1})
}

// open reports whether nobody is asked who vouches for a program.
func (t *Trust) open() bool { return t.lacks == "secure boot" }

func publicPEM(s uefi.Signer) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(s.Key.Public())
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), err
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
	ctx, pcrs := context.Background(), "7"
	if t.open() {
		pcrs = "2+4+7+12+13" // as the early boot has it
	}
	if _, err := t.cryptenroll(ctx, sys.Command("systemd-cryptenroll", "--tpm2-device=auto", "--tpm2-pcrs="+pcrs, "--pretend-first", t.root)); err != nil {
		return err
	}
	key, err := t.cryptenroll(ctx, sys.Command("systemd-cryptenroll", "--unlock-tpm2-device=auto", "--recovery-key", t.root))
	if err != nil {
		return err
	}
	return t.write("/var/lib/incus-os/recovery.root.key", key)
}
