package seal_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/seal"
	"github.com/incusos/incusos/internal/sys/systest"
)

const (
	first  = "correct-horse battery 9 staple"
	second = "Zug um 7:42 nach Hamburg!"
)

func config(keys ...string) (c api.SystemSecurityConfig) {
	for _, k := range keys {
		c.EncryptionRecoveryKeys = append(c.EncryptionRecoveryKeys, api.Secret(k))
	}
	return c
}

// own returns the recovery key that the first boot made.
func own(t *testing.T, rig *systest.Rig) string {
	t.Helper()
	b, err := rig.Host.Files.ReadFile("/var/lib/incus-os/recovery.root.key")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// change does what a change of the configuration does, to its end.
func change(t *testing.T, s *seal.Seal, c api.SystemSecurityConfig) {
	t.Helper()
	if err := s.Apply(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if err := s.SaveKeys(c.EncryptionRecoveryKeys); err != nil {
		t.Fatal(err)
	}
}

// opening returns which of some keys open root, and how many key slots there are
// besides that of the TPM.
func opening(t *testing.T, trust *systest.Trust, keys ...string) ([]bool, int) {
	t.Helper()
	h, err := trust.Header()
	if err != nil {
		t.Fatal(err)
	}
	var open []bool
	for _, k := range keys {
		open = append(open, trust.Opens(k))
	}
	return open, len(h.Slots) - len(h.TPM2Tokens())
}

func TestRecoveryKeysAreAddedAndRemoved(t *testing.T) {
	rig, trust, s := trusted(t)
	made := own(t, rig)
	steps := []struct {
		keys []string
		open []bool // made, first, second
	}{
		{[]string{made, first}, []bool{true, true, false}},
		{[]string{made, first, second}, []bool{true, true, true}},
		{[]string{second}, []bool{false, false, true}}, // the machine's own goes too
		{[]string{first}, []bool{false, true, false}},
		{[]string{strings.ToUpper(strings.ReplaceAll(made, "-", "")), first}, []bool{true, true, false}},
	}
	for i, step := range steps {
		change(t, s, config(step.keys...))
		open, slots := opening(t, trust, made, first, second)
		if !slices.Equal(open, step.open) || slots != len(step.keys) {
			t.Errorf("step %d: open %v in %d slots, want %v in %d", i, open, slots, step.open, len(step.keys))
		}
		if !trust.Opens(own(t, rig)) {
			t.Errorf("step %d: the machine's own key opens nothing", i)
		}
		if plan, err := s.Plan(t.Context(), config(step.keys...)); err != nil || !plan.Empty() {
			t.Errorf("step %d: more to do: %v, %v", i, plan, err)
		}
		if err := s.Reconcile(t.Context()); err != nil {
			t.Errorf("step %d: %v", i, err)
		}
	}
	for _, line := range rig.Programs.Ran() {
		if strings.Contains(line, "horse") || strings.Contains(line, "Hamburg") {
			t.Errorf("a key is in a command line: %q", line)
		}
	}
}

func TestRecoveryKeysAreRefused(t *testing.T) {
	rig, trust, s := trusted(t)
	made := own(t, rig)
	many := []string{made}
	for i := range 16 {
		many = append(many, fmt.Sprintf("%s %d", first, i))
	}
	tests := map[string]struct {
		keys []string
		want string
	}{
		"short":            {[]string{made, "a1-b2!c3"}, "encryption_recovery_keys[1]: has 8 characters; want 15 to 256"},
		"letters alone":    {[]string{"abcXYZjumpdogfox1"}, "encryption_recovery_keys[0]: has letters and digits alone; want at least one sign, such as a dash"},
		"few kinds":        {[]string{"a-a-a-a-a-b-b-b-b-b"}, "encryption_recovery_keys[0]: consists of 3 different characters; want at least 5"},
		"a row":            {[]string{"qwertyuiopasdf!"}, "encryption_recovery_keys[0]: is easily guessed: without common words, repetitions and rows of the keyboard 3 characters are left; want at least 10"},
		"a common word":    {[]string{"password-password-123456"}, "encryption_recovery_keys[0]: is easily guessed: without common words, repetitions and rows of the keyboard 5 characters are left; want at least 10"},
		"over and over":    {[]string{"x!7kQ-x!7kQ-x!7kQ-"}, "encryption_recovery_keys[0]: is easily guessed: without common words, repetitions and rows of the keyboard 6 characters are left; want at least 10"},
		"not on keyboards": {[]string{"Straße-nach-Köln-7"}, "encryption_recovery_keys[0]: has characters that not every keyboard has; want letters, digits and signs of ASCII, since it is typed before any layout is chosen"},
		"a blank":          {[]string{first + " "}, "encryption_recovery_keys[0]: begins or ends with a blank, which nobody sees; leave it out"},
		"twice":            {[]string{made, strings.ToUpper(made)}, "encryption_recovery_keys[1]: is there twice"},
		"too many":         {many, "encryption_recovery_keys: has 17 keys; want at most 16"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, planErr := s.Plan(t.Context(), config(tt.keys...))
			err := s.Apply(t.Context(), config(tt.keys...))
			if err == nil || err.Error() != tt.want || planErr == nil || planErr.Error() != tt.want {
				t.Errorf("said %v, and as a plan %v; want %q", err, planErr, tt.want)
			}
		})
	}
	if open, slots := opening(t, trust, made); !open[0] || slots != 1 {
		t.Errorf("open %v in %d slots after refusals", open, slots)
	}
}

// What the machine makes is never weak, and no error shows what it is about.
func TestWeakNeverShowsTheKey(t *testing.T) {
	rig, _, s := trusted(t)
	made := own(t, rig)
	rapid.Check(t, func(rt *rapid.T) {
		key := rapid.StringMatching(`[ -~]{4,40}`).Draw(rt, "key")
		if _, err := s.Plan(rt.Context(), config(made, key)); err != nil && strings.Contains(err.Error(), key) {
			rt.Errorf("said %v of %q", err, key)
		}
	})
}

func TestPlanOfKeys(t *testing.T) {
	rig, _, s := trusted(t)
	plan, err := s.Plan(t.Context(), config(first, second))
	want := "add recovery key 1 to root\nadd recovery key 2 to root\nremove recovery key 1 from root (whoever has no other cannot unlock it any more)\n"
	if err != nil || plan.String() != want {
		t.Errorf("plan is %q, %v, want %q", plan, err, want)
	}
	if ran := rig.Programs.Ran(); len(ran) != 0 {
		t.Errorf("a plan ran %q", ran)
	}
}

// TestKeysSurviveCuts cuts a change at every effect, once as if the power had failed,
// restarts, and expects one of the keys the operator knows to open root at once, and
// the saved ones after the next reconciliation, with nothing left of the others.
func TestKeysSurviveCuts(t *testing.T) {
	for _, late := range []bool{false, true} {
		for at := 1; ; at++ {
			rig, trust, s := trusted(t)
			made := own(t, rig)
			change(t, s, config(made, first))
			cutter := &systest.Cutter{At: at, Power: true, Late: late}
			cut := seal.New(cutter.Host(rig.Host), func() bool { return true })
			wanted := config(second)
			err := cut.Apply(t.Context(), wanted)
			if err == nil {
				err = cut.SaveKeys(wanted.EncryptionRecoveryKeys)
			}
			if cutter.Over() {
				break
			}
			if err == nil {
				t.Fatalf("effect %d was cut and nobody noticed", at)
			}
			if open, _ := opening(t, trust, made, first, second); !open[0] && !open[1] && !open[2] {
				t.Fatalf("after a cut at %d no key opens root", at)
			}
			again := seal.New(rig.Host, func() bool { return true })
			saved, err := again.SavedKeys()
			if err != nil {
				t.Fatal(err)
			}
			if err := again.Apply(t.Context(), config(texts(saved)...)); err != nil {
				t.Fatalf("after a cut at %d: %v", at, err)
			}
			open, slots := opening(t, trust, made, first, second)
			want := []bool{slices.Contains(texts(saved), made), slices.Contains(texts(saved), first), slices.Contains(texts(saved), second)}
			if !slices.Equal(open, want) || slots != len(saved) || len(saved) == 0 {
				t.Fatalf("after a cut at %d (late %v): open %v in %d slots, saved are %d", at, late, open, slots, len(saved))
			}
			if by, err := trust.Restart(); by != "tpm" || err != nil {
				t.Fatalf("after a cut at %d: unlocked by %q, %v", at, by, err)
			}
			change(t, again, wanted)
			if open, slots := opening(t, trust, made, first, second); slots != 1 || !open[2] {
				t.Fatalf("after a cut at %d and once more: open %v in %d slots", at, open, slots)
			}
		}
	}
}

func texts(keys []api.Secret) []string {
	var out []string
	for _, k := range keys {
		out = append(out, string(k))
	}
	return out
}

func TestUnlistedKeysAreComplainedOf(t *testing.T) {
	rig, _, s := trusted(t)
	c := cryptenroll("--password", "/dev/vda9")
	c.Env = []string{"PASSWORD=" + own(t, rig), "NEWPASSWORD=mallory"}
	if _, err := rig.Host.Exec.Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if err := s.Reconcile(t.Context()); err == nil || !strings.Contains(err.Error(), "key slot 2 of root opens for a key that is in no list") {
		t.Errorf("Reconcile() = %v", err)
	}
}

func TestCustomCertificatesAreTrusted(t *testing.T) {
	rig, _, s := trusted(t)
	write(t, rig, "/usr/share/factory/etc/ssl/certs/ca-certificates.crt", "of the image\n")
	cert := certificatePEM(t)
	c := config(own(t, rig))
	c.CustomCACerts = []string{"\n" + cert}
	for _, step := range []struct {
		config api.SystemSecurityConfig
		want   string
	}{{c, "of the image\n" + cert}, {c, "of the image\n" + cert}, {config(own(t, rig)), "of the image\n"}} {
		if err := s.Apply(t.Context(), step.config); err != nil {
			t.Fatal(err)
		}
		if b, err := rig.Host.Files.ReadFile("/etc/ssl/certs/ca-certificates.crt"); err != nil || string(b) != step.want {
			t.Errorf("trusted are %q, %v; want %q", b, err, step.want)
		}
	}
}
