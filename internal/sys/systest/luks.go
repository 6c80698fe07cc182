package systest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/incusos/incusos/internal/luks"
	"github.com/incusos/incusos/internal/sys"
)

// On a pretend device a real header is followed by what a real one cannot tell: the
// digest of what opens each key slot, by its number, and for each token that of the
// PIN and which TPM it is bound to.
const (
	headerSize = 16 << 10
	secretsAt  = 2 * headerSize
	secretsMax = 64 << 10
)

func newHeader() luks.Header { return luks.Header{} }

// header returns the header of root and the secrets behind it.
func (t *Trust) header() (luks.Header, map[string]string, error) {
	f, err := t.files.Open(t.root)
	if err != nil {
		return luks.Header{}, nil, err
	}
	defer f.Close()
	h, err := luks.Read(f)
	if err != nil {
		return h, nil, err
	}
	b := make([]byte, secretsMax)
	if _, err := f.ReadAt(b, secretsAt); err != nil {
		return h, nil, err
	}
	secrets := make(map[string]string)
	err = json.Unmarshal([]byte(strings.TrimRight(string(b), "\x00")), &secrets)
	return h, secrets, err
}

func (t *Trust) save(h luks.Header, secrets map[string]string) error {
	b, err := luks.Encode(h, headerSize)
	if err != nil {
		return err
	}
	text, err := json.Marshal(secrets)
	if err != nil {
		return err
	}
	b = append(b, make([]byte, secretsMax)...)
	copy(b[secretsAt:], text)
	f, err := os.OpenFile(t.files.Path(t.root), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	return errors.Join(err, f.Close())
}

// Header returns who can open root.
func (t *Trust) Header() (luks.Header, error) {
	h, _, err := t.header()
	return h, err
}

// Opens reports whether a key slot of root is opened by key.
func (t *Trust) Opens(key string) bool {
	_, secrets, err := t.header()
	if err != nil {
		return false
	}
	return slices.Contains(openers(secrets), digestOf(key))
}

// gives reports whether the TPM that is there gives away what it is asked for by a
// token, as far as that is no matter of PCRs.
func (t *Trust) gives(token luks.Token, secrets map[string]string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	pin, asked := secrets["pin"+strconv.Itoa(token.Number)]
	return secrets["tpm"+strconv.Itoa(token.Number)] == t.tpm() && (!asked || pin == digestOf(t.pin))
}

// tpm names the TPM that is there.
func (t *Trust) tpm() string {
	b, err := t.files.ReadFile("/dev/tpmrm0")
	if err != nil {
		return "none"
	}
	return "TPM " + string(b)
}

// ReplaceTPM puts another TPM into the machine.
func (t *Trust) ReplaceTPM() error { return t.write("/dev/tpmrm0", []byte("another")) }

func digestOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// enrolment is what systemd-cryptenroll is asked for.
type enrolment struct {
	env                map[string]string
	wipe, device       string
	pcrs               string
	tpm, pin, password bool
	recovery, byTPM    bool
	unsigned           bool // no key vouches for PCR 11
	first              bool // there is nothing yet that would unlock
}

func readEnrolment(c sys.Cmd) (enrolment, error) {
	e := enrolment{env: make(map[string]string)}
	for _, v := range c.Env {
		name, value, _ := strings.Cut(v, "=")
		e.env[name] = value
	}
	for _, arg := range c.Args {
		name, value, _ := strings.Cut(arg, "=")
		switch name {
		case "--wipe-slot":
			e.wipe = value
		case "--tpm2-device":
			e.tpm = true
		case "--tpm2-pcrs":
			e.pcrs = value
		case "--tpm2-with-pin":
			e.pin = value == "yes"
		case "--password":
			e.password = true
		case "--recovery-key":
			e.recovery = true
		case "--unlock-tpm2-device":
			e.byTPM = true
		case "--pretend-first":
			e.first = true
		case "--tpm2-public-key":
			e.unsigned = value == ""
		case "--tpm2-public-key-pcrs", "--tpm2-pcrlock":
		default:
			if strings.HasPrefix(arg, "-") {
				return e, refuse("Unknown option " + arg)
			}
			e.device = arg
		}
	}
	return e, nil
}

func refuse(why string) error {
	return &sys.ExecError{Name: "systemd-cryptenroll", Code: 1, Stderr: why}
}

// cryptenroll models systemd-cryptenroll as version 257 behaves: what is new is
// enrolled before anything is wiped, and what a TPM is bound to already is left
// alone, unless there is a PIN.
func (t *Trust) cryptenroll(_ context.Context, c sys.Cmd) ([]byte, error) {
	e, err := readEnrolment(c)
	if err != nil {
		return nil, err
	}
	if e.device != t.root {
		return nil, refuse("Failed to open LUKS2 device " + e.device)
	}
	h, secrets, err := t.header()
	if err != nil {
		return nil, err
	}
	var out []byte
	added := -1
	// Whoever asks is past the initrd's unlocking, and PCR 15 is not empty any more.
	if e.byTPM && !slices.ContainsFunc(h.TPM2Tokens(), func(k luks.Token) bool { return !slices.Contains(k.TPM2.PCRs, 15) }) {
		return nil, refuse("Failed to unseal secret using TPM2: Operation not permitted")
	}
	if e.tpm || e.password || e.recovery {
		if !e.first && !e.byTPM && !slices.Contains(openers(secrets), digestOf(e.env["PASSWORD"])) {
			return nil, refuse("Password from environment variable $PASSWORD did not work: Operation not permitted")
		}
		if added, out, err = t.enroll(e, &h, secrets); err != nil {
			return nil, err
		}
	}
	if e.wipe != "" {
		if err := wipe(e.wipe, added, &h, secrets); err != nil {
			return nil, err
		}
	}
	return out, t.save(h, secrets)
}

func openers(secrets map[string]string) []string {
	var all []string
	for name, digest := range secrets {
		if _, err := strconv.Atoi(name); err == nil {
			all = append(all, digest)
		}
	}
	return all
}

// free returns the lowest number that is not in use.
func free(used []int) int {
	n := 0
	for slices.Contains(used, n) {
		n++
	}
	return n
}

// enroll adds a key slot, and returns its number and what is printed.
func (t *Trust) enroll(e enrolment, h *luks.Header, secrets map[string]string) (slot int, out []byte, err error) {
	slot = free(h.Slots)
	var tokens []int
	for _, k := range h.Tokens {
		tokens = append(tokens, k.Number)
	}
	token := luks.Token{Number: free(tokens), Slots: []int{slot}}
	switch {
	case e.tpm:
		if token.TPM2, err = t.binding(e); err != nil {
			return 0, nil, err
		}
		token.Type = luks.TokenTPM2
		for _, k := range h.TPM2Tokens() {
			if !e.pin && slices.Equal(k.TPM2.PolicyHash, token.TPM2.PolicyHash) {
				return k.Slots[0], nil, nil // "already enrolled, executing no operation"
			}
		}
		secrets["tpm"+strconv.Itoa(token.Number)] = t.tpm()
		if e.pin {
			secrets["pin"+strconv.Itoa(token.Number)] = digestOf(e.env["NEWPIN"])
			defer func() { replaced(token, h, secrets) }() // what had another PIN goes once this is there
		}
	case e.recovery:
		token.Type = luks.TokenRecovery
		key := modhexKey()
		secrets[strconv.Itoa(slot)], out = digestOf(key), []byte(key+"\n")
	default:
		secrets[strconv.Itoa(slot)] = digestOf(e.env["NEWPASSWORD"])
	}
	h.Slots = append(h.Slots, slot)
	slices.Sort(h.Slots)
	if token.Type != "" {
		h.Tokens = append(h.Tokens, token)
	}
	return slot, out, nil
}

// replaced wipes the other tokens with the policy of token.
func replaced(token luks.Token, h *luks.Header, secrets map[string]string) {
	for _, k := range h.TPM2Tokens() {
		if k.Number != token.Number && slices.Equal(k.TPM2.PolicyHash, token.TPM2.PolicyHash) {
			_ = wipe(strconv.Itoa(k.Slots[0]), token.Slots[0], h, secrets) // it is there
		}
	}
}

// binding is how a TPM is bound by what it was asked for: registers by value, as given
// or as they are, and PCR 11 by a signature unless there is to be no key.
func (t *Trust) binding(e enrolment) (luks.TPM2, error) {
	if !t.files.Exists("/dev/tpmrm0") {
		return luks.TPM2{}, refuse("TPM2 support is not installed.")
	}
	b := luks.TPM2{Bank: "sha256", PIN: e.pin}
	values := make(map[int][32]byte)
	for _, part := range strings.Split(e.pcrs, "+") {
		number, text, given := strings.Cut(part, ":sha256=")
		n, err := strconv.Atoi(number)
		if err != nil || n > 23 {
			return luks.TPM2{}, refuse("Failed to parse PCR " + part)
		}
		if !given {
			held, err := t.files.ReadFile("/sys/class/tpm/tpm0/pcr-sha256/" + number)
			if err != nil {
				return luks.TPM2{}, err
			}
			text = strings.TrimSpace(string(held))
		}
		value, err := hex.DecodeString(text)
		if err != nil || len(value) != sha256.Size {
			return luks.TPM2{}, refuse("Failed to parse PCR value " + text)
		}
		b.PCRs, values[n] = append(b.PCRs, n), [32]byte(value)
	}
	if !e.unsigned {
		public, err := t.files.ReadFile("/run/systemd/tpm2-pcr-public-key.pem")
		if err != nil {
			return luks.TPM2{}, err
		}
		b.SignedPCRs, b.PublicKey = []int{11}, public
	}
	policy, _, err := reckon(b, values)
	b.PolicyHash = policy[:]
	return b, err
}

// wipe takes key slots away: one, or all of a kind but the one just added.
func wipe(what string, added int, h *luks.Header, secrets map[string]string) error {
	var gone []int
	for _, slot := range h.Slots {
		switch kind := h.Kind(slot); {
		case slot == added:
		case what == strconv.Itoa(slot), what == "tpm2" && kind == luks.TokenTPM2, what == "recovery" && kind == luks.TokenRecovery, what == "password" && kind == "":
			gone = append(gone, slot)
		}
	}
	if _, err := strconv.Atoi(what); err == nil && gone == nil {
		return refuse(fmt.Sprintf("Failed to wipe non-existent slot %s, continuing.", what))
	}
	if len(gone) == len(h.Slots) {
		return refuse("Wipe operation would leave no slots, refusing.")
	}
	for _, slot := range gone {
		delete(secrets, strconv.Itoa(slot))
		h.Slots = slices.DeleteFunc(h.Slots, func(n int) bool { return n == slot })
		h.Tokens = slices.DeleteFunc(h.Tokens, func(k luks.Token) bool {
			if slices.Contains(k.Slots, slot) {
				delete(secrets, "pin"+strconv.Itoa(k.Number))
				delete(secrets, "tpm"+strconv.Itoa(k.Number))
				return true
			}
			return false
		})
	}
	return nil
}

// modhexKey is a recovery key as systemd-cryptenroll makes it.
func modhexKey() string {
	const modhex = "cbdefghijklnrtuv"
	raw := make([]byte, 64)
	rand.Read(raw) //nolint:errcheck // never fails
	var b strings.Builder
	for i, c := range raw {
		if i > 0 && i%8 == 0 {
			b.WriteByte('-')
		}
		b.WriteByte(modhex[c%16])
	}
	return b.String()
}
