//go:build vm

package image_test

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"debug/elf"
	"debug/pe"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/smallstep/pkcs7"
)

// sections returns the contents of a PE file's sections without their padding.
func sections(t *testing.T, name string) map[string][]byte {
	t.Helper()
	f, err := pe.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := make(map[string][]byte)
	for _, s := range f.Sections {
		content, err := s.Data()
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := all[s.Name]; twice {
			t.Fatalf("%s has two sections %s", name, s.Name)
		}
		all[s.Name] = content[:min(len(content), int(s.VirtualSize))]
	}
	return all
}

func (b *built) section(name string) string {
	return strings.TrimRight(string(b.sections[name]), "\x00\n")
}

// testModules: under lockdown the kernel takes no module that is not signed.
func testModules(t *testing.T, b *built) {
	kernels := b.base.glob(t, "usr/lib/modules/*")
	if want := []string{"usr/lib/modules/" + b.section(".uname")}; !slices.Equal(kernels, want) {
		t.Fatalf("there are modules for %q, want only those of the UKI's kernel, %q", kernels, want)
	}
	for _, name := range []string{"spl", "zfs"} {
		file := kernels[0] + "/updates/dkms/" + name + ".ko"
		content := b.base.read(t, file)
		if !strings.HasSuffix(content, "~Module signature appended~\n") {
			t.Errorf("%s is not signed", file)
		}
		if !bytes.Contains(moduleInfo(t, content), []byte("\x00vermagic="+b.section(".uname")+" ")) {
			t.Errorf("%s is for another kernel than %s", file, b.section(".uname"))
		}
		if !strings.Contains(b.base.read(t, kernels[0]+"/modules.dep"), "updates/dkms/"+name+".ko:") {
			t.Errorf("modprobe does not know %s", file)
		}
	}
}

func moduleInfo(t *testing.T, module string) []byte {
	t.Helper()
	f, err := elf.NewFile(strings.NewReader(module))
	if err != nil {
		t.Fatal(err)
	}
	info, err := f.Section(".modinfo").Data()
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte{0}, info...)
}

// testCommandLine: what stands here decides which /usr is run, and from where
// else the machine takes orders.
func testCommandLine(t *testing.T, b *built) {
	words := strings.Fields(b.section(".cmdline"))
	for _, want := range []string{
		"usrhash=" + rootHash(t, readFile(t, b.sig)).RootHash,
		"systemd.image_policy=esp=unprotected:usr=verity+signed:root=encrypted+absent:=ignore",
		"systemd.import_credentials=no",
		"systemd.verity_usr_options=panic-on-corruption",
		"systemd.gpt_auto=no",
	} {
		if !slices.Contains(words, want) {
			t.Errorf("the command line lacks %s: %q", want, words)
		}
	}
	for _, word := range words {
		name, _, _ := strings.Cut(word, "=")
		if slices.Contains([]string{"init", "rdinit", "single", "rescue", "emergency", "systemd.debug_shell", "rd.shell", "break", "systemd.unit", "rd.systemd.unit", "module.sig_enforce", "lockdown"}, name) {
			t.Errorf("the command line has %s", word)
		}
	}
	for _, old := range []string{".dtb", ".profile", ".splash"} {
		if _, ok := b.sections[old]; ok {
			t.Errorf("the UKI has a section %s, which nobody asked for", old)
		}
	}
}

// A signedHash is the content of a partition with a verity signature.
type signedHash struct {
	RootHash    string `json:"rootHash"`
	Fingerprint string `json:"certificateFingerprint"`
	Signature   []byte `json:"signature"`
}

func rootHash(t *testing.T, partition []byte) signedHash {
	t.Helper()
	var s signedHash
	if err := json.Unmarshal(bytes.TrimRight(partition, "\x00"), &s); err != nil {
		t.Fatal(err)
	}
	if len(s.RootHash) != 64 || len(s.Signature) == 0 {
		t.Fatalf("the signature partition holds %+v", s)
	}
	return s
}

func testSignatures(t *testing.T, b *built) {
	block, _ := pem.Decode(readFile(t, b.cert))
	if block == nil {
		t.Fatalf("%s holds no certificate", b.cert)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	signed := map[string][]byte{"/usr": readFile(t, b.sig)}
	for name, sig := range b.sigs {
		signed["the extension "+name] = sig
	}
	for what, partition := range signed {
		s := rootHash(t, partition)
		if want := fmt.Sprintf("%x", sha256.Sum256(cert.Raw)); s.Fingerprint != want {
			t.Errorf("%s is signed by %s, want %s", what, s.Fingerprint, want)
		}
		p, err := pkcs7.Parse(s.Signature)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		p.Content, p.Certificates = []byte(s.RootHash), []*x509.Certificate{cert}
		if err := p.Verify(); err != nil {
			t.Errorf("the signature of %s does not fit its root hash: %v", what, err)
		}
	}
	b.run(t, "/usr/bin/sbverify", "--cert", b.cert, b.UKI)
	loader := b.base.path("usr/lib/systemd/boot/efi/systemd-bootx64.efi.signed")
	if _, err := os.Stat(loader); err == nil {
		b.run(t, "/usr/bin/sbverify", "--cert", b.cert, loader)
	}
}

// testPolicy computes the one state of PCR 11 that the TPM may give the disk's
// key in: this UKI, in the initrd, and nothing later (systemd-stub(7) for what is
// measured, TPM 2.0 library part 3, TPM2_PolicyPCR, for the digest).
func testPolicy(t *testing.T, b *built) {
	type policy struct {
		PCRs      []int  `json:"pcrs"`
		Key       string `json:"pkfp"`
		Policy    string `json:"pol"`
		Signature []byte `json:"sig"`
	}
	var banks map[string][]policy
	if err := json.Unmarshal([]byte(b.section(".pcrsig")), &banks); err != nil {
		t.Fatal(err)
	}
	if len(banks) != 1 || len(banks["sha256"]) != 1 {
		t.Fatalf("the UKI has the policies %v, want one for sha256", banks)
	}
	p := banks["sha256"][0]
	if want := policyOf(b.pcr11("enter-initrd")); !slices.Equal(p.PCRs, []int{11}) || p.Policy != want {
		t.Errorf("the policy is %s for PCRs %v, want %s for PCR 11 in the initrd", p.Policy, p.PCRs, want)
	}
	key, _ := pem.Decode(b.sections[".pcrpkey"])
	if key == nil {
		t.Fatal("the UKI has no key for its policy")
	}
	pub, err := x509.ParsePKIXPublicKey(key.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, ok := pub.(*rsa.PublicKey)
	if !ok {
		t.Fatalf("the policy's key is a %T, which TPMs need not know; want RSA", pub)
	}
	if want := fmt.Sprintf("%x", sha256.Sum256(x509.MarshalPKCS1PublicKey(rsaKey))); p.Key != want {
		t.Errorf("the policy is signed by %s, want the UKI's own key %s", p.Key, want)
	}
	digest, err := hex.DecodeString(p.Policy)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(digest)
	if err := rsa.VerifyPKCS1v15(rsaKey, crypto.SHA256, sum[:], p.Signature); err != nil {
		t.Errorf("the policy's signature does not fit: %v", err)
	}
}

// pcr11 is what systemd-stub and then each phase of the boot leave in PCR 11.
func (b *built) pcr11(phases ...string) [sha256.Size]byte {
	var pcr [sha256.Size]byte
	extend := func(content []byte) {
		sum := sha256.Sum256(content)
		pcr = sha256.Sum256(append(pcr[:], sum[:]...))
	}
	for _, name := range []string{".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".uname", ".sbat", ".pcrpkey"} {
		if content, ok := b.sections[name]; ok {
			extend(append([]byte(name), 0))
			extend(content)
		}
	}
	for _, phase := range phases {
		extend([]byte(phase))
	}
	return pcr
}

// policyOf is the digest of a TPM policy that asks for one value of PCR 11.
func policyOf(pcr [sha256.Size]byte) string {
	command := make([]byte, sha256.Size)                        // of the empty policy
	command = binary.BigEndian.AppendUint32(command, 0x17f)     // TPM_CC_PolicyPCR
	command = binary.BigEndian.AppendUint32(command, 1)         // one bank:
	command = binary.BigEndian.AppendUint16(command, 0xb)       // TPM_ALG_SHA256
	command = append(command, 3 /* bytes follow */, 0, 1<<3, 0) // PCR 11
	value := sha256.Sum256(pcr[:])
	return fmt.Sprintf("%x", sha256.Sum256(append(command, value[:]...)))
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
