//go:build vm

package vm_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/smallstep/pkcs7"

	"github.com/incusos/incusos/internal/vm"
	"github.com/incusos/incusos/test/vm/incus"
)

// shellSays is what a shell, or who lets people to one, would print.
var shellSays = regexp.MustCompile(`(?i)login:|password:|uid=0|not found$|[#$] $`)

// attackedFromWithin has root in the running machine try what lockdown and the TPM
// are to prevent, and somebody at the console what only a shell would do.
func attackedFromWithin(t *testing.T, r *vm.Running, c *incus.Client) {
	t.Run("root in the running machine loads no module and writes no kernel memory", func(t *testing.T) { lockedDown(t, r, c) })
	t.Run("the TPM gives the disk's key to nobody in the running machine", func(t *testing.T) { sealedOff(t, r, c) })
	t.Run("nobody logs in at the console", func(t *testing.T) { noLogin(t, r, c) })
}

// asRoot runs a script that the support key signed, and returns what it printed.
func asRoot(t *testing.T, r *vm.Running, c *incus.Client, script string) string {
	t.Helper()
	keys := input(t, "INCUSOS_KEYS", "keys", "make keys")
	pair, err := tls.LoadX509KeyPair(filepath.Join(keys, "support.crt"), filepath.Join(keys, "support.key"))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	signed, err := pkcs7.NewSignedData([]byte(script))
	if err != nil {
		t.Fatal(err)
	}
	signed.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	if err := signed.AddSigner(cert, pair.PrivateKey, pkcs7.SignerInfoConfig{}); err != nil {
		t.Fatal(err)
	}
	der, err := signed.Finish()
	if err != nil {
		t.Fatal(err)
	}
	message := "Content-Type: application/pkcs7-mime\n\n" + base64.StdEncoding.EncodeToString(der) + "\n"
	var out string
	if err := c.Feed(within(t, r, 2*time.Minute), "/os/1.0/debug/:run-script", []byte(message), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// expectIn fails unless each pattern is somewhere in what was printed.
func expectIn(t *testing.T, out string, patterns ...string) {
	t.Helper()
	for _, p := range patterns {
		if !regexp.MustCompile(`(?m)` + p).MatchString(out) {
			t.Errorf("%q is not in\n%s", p, out)
		}
	}
}

// expectNotIn fails if a pattern is somewhere in what was printed.
func expectNotIn(t *testing.T, out string, patterns ...string) {
	t.Helper()
	for _, p := range patterns {
		if regexp.MustCompile(`(?m)` + p).MatchString(out) {
			t.Errorf("%q is in\n%s", p, out)
		}
	}
}

// lockedDown takes the same module twice: as Debian signed it, to see that the kernel
// takes modules at all, and without the signature.
func lockedDown(t *testing.T, r *vm.Running, c *incus.Client) {
	out := asRoot(t, r, c, fmt.Sprintf(`modprobe dummy numdummies=0 && rmmod dummy && echo signed module: taken
base64 -d >/run/unsigned.ko <<'END'
%s
END
insmod /run/unsigned.ko 2>&1 && echo unsigned module: taken
rm /run/unsigned.ko
dd if=/dev/zero of=/dev/mem bs=1 count=1 seek=4096 conv=notrunc 2>&1 && echo memory: written
dmesg | grep -i 'locked down'
`, base64.StdEncoding.EncodeToString(unsignedModule(t))))
	expectIn(t, out, `^signed module: taken$`, `^insmod: .*(Key was rejected|Operation not permitted)`,
		`^dd: .*/dev/mem.*: Operation not permitted$`, `Kernel is locked down from EFI Secure Boot`)
	expectNotIn(t, out, `^unsigned module: taken$`, `^memory: written$`)
}

// unsignedModule is the kernel's module dummy without its signature, which is behind it:
// the signature, its description with the length in the last four bytes, and a marker
// (the kernel's include/linux/module_signature.h).
func unsignedModule(t *testing.T) []byte {
	t.Helper()
	const marker, description = "~Module signature appended~\n", 12
	b := builtRelease(t)
	found, err := filepath.Glob(filepath.Join(b.image, "base/usr/lib/modules/*/kernel/drivers/net/dummy.ko.xz"))
	if err != nil || len(found) != 1 {
		t.Fatalf("the modules are %q, %v; want one", found, err)
	}
	packed, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	b.made = filepath.Join(b.work, "module")
	b.put(t, "dummy.ko.xz", packed)
	module := b.tool(t, "xz", "-dc", "made/dummy.ko.xz")
	rest, signed := bytes.CutSuffix(module, []byte(marker))
	if !signed {
		t.Fatal("the module is not signed to begin with")
	}
	length := binary.BigEndian.Uint32(rest[len(rest)-4:])
	return rest[:len(rest)-description-int(length)]
}

// sealedOff asks the TPM for the key of root in each way that the machine has programs
// for, and the kernel for the key it works with.
func sealedOff(t *testing.T, r *vm.Running, c *incus.Client) {
	out := asRoot(t, r, c, `root=$(sed 's/.*"root":"\([^"]*\)".*/\1/' /run/incus-os/early.json)
systemd-cryptsetup attach stolen $root - tpm2-device=auto,headless=yes,read-only 2>&1 && echo opened
systemd-cryptenroll --unlock-tpm2-device=auto --password $root 2>&1 </dev/null && echo enrolled
ls /dev/mapper
dmsetup table --showkeys root
`)
	expectIn(t, out, `^Failed to unseal secret using TPM2: Operation not permitted$`, `^root$`, `crypt .* :64:logon:cryptsetup:`)
	expectNotIn(t, out, `^opened$`, `^enrolled$`, `^stolen$`)
}

// noLogin types at the serial console what a shell would answer, and looks who listens
// there.
func noLogin(t *testing.T, r *vm.Running, c *incus.Client) {
	for _, typed := range []string{"\r", "root\r", "\x03", "\x04", "\x1a", "\x1b[15~", "id\r", "\x1d"} {
		if err := r.Console.Type(typed); err != nil {
			t.Fatal(err)
		}
		rest(t.Context(), 300*time.Millisecond) // one wish at a time
	}
	out := asRoot(t, r, c, `find /proc/[0-9]*/fd \( -lname '/dev/tty*' -o -lname '/dev/console' -o -lname '/dev/hvc*' \) 2>/dev/null |
	while IFS=/ read -r _ _ id _; do echo "open by $(cat /proc/$id/comm)"; done
systemctl list-units --all --plain --no-legend '*getty*' '*login*' '*shell*'
`)
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "open by incus-osd") && !strings.Contains(line, "systemd-logind") {
			t.Errorf("something else listens at the console: %s", line)
		}
	}
	expectIn(t, out, `^open by incus-osd$`)
	if r.Console.Seen(shellSays) {
		t.Errorf("there is somebody to log in to:\n%s", r.Console.Tail(30))
	}
}
