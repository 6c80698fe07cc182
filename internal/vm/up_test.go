package vm

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/internal/seed"
	"github.com/incusos/incusos/internal/sys"
)

func newIdentity(t *testing.T) Identity {
	t.Helper()
	id, err := OpenIdentity(filepath.Join(t.TempDir(), "client"))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestTheMachineUnderstandsItsSeed reads the seed as a machine does.
func TestTheMachineUnderstandsItsSeed(t *testing.T) {
	id, files, root := newIdentity(t), t.TempDir(), t.TempDir()
	if err := WriteSeed(files, id.PEM); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := errors.Join(w.AddFS(os.DirFS(files)), w.Close()); err != nil {
		t.Fatal(err)
	}
	write(t, root+"/dev/disk/by-partlabel/seed-data", b.String())

	s, err := seed.Open(sys.Host{Files: sys.NewDir(root)})
	if err != nil {
		t.Fatal(err)
	}
	_, install, err1 := s.Install()
	apps, _, err2 := s.ApplicationList()
	incus, _, err3 := s.Incus()
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	if !install || len(apps.Applications) != 1 || apps.Applications[0].Name != "incus" || !incus.ApplyDefaults {
		t.Errorf("the seed says install %v, applications %+v, defaults %v, want all of it", install, apps, incus.ApplyDefaults)
	}
	if got := fmt.Sprint(incus.Preseed); !strings.Contains(got, string(id.PEM)) {
		t.Errorf("the preseed does not hold the certificate: %s", got)
	}
}

func TestTrustedAsksWithTheCertificate(t *testing.T) {
	id := newIdentity(t)
	want, err := x509.ParseCertificate(id.cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		auth := "untrusted"
		if certs := r.TLS.PeerCertificates; len(certs) == 1 && certs[0].Equal(want) {
			auth = "trusted"
		}
		fmt.Fprintf(w, `{"type":"sync","metadata":{"auth":%q}}`, auth)
	}))
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert} //nolint:gosec // as Incus does
	s.StartTLS()
	defer s.Close()

	if err := (&Site{Identity: id, URL: s.URL}).Trusted(t.Context()); err != nil {
		t.Errorf("Trusted() = %v, want nil", err)
	}
	if err := (&Site{URL: s.URL}).Trusted(t.Context()); err == nil {
		t.Error("Trusted() = nil without a certificate, want an error")
	}
}

func TestUpStartsAnInterruptedInstallOver(t *testing.T) {
	o := UpOptions{Options: fakeTools(t), Dir: t.TempDir(), Progress: func(time.Duration, string) {}}
	o.Medium = func(_ context.Context, seed, file string) error {
		if _, err := os.Stat(filepath.Join(seed, "install.yaml")); err != nil {
			t.Errorf("the medium is made without a seed: %v", err)
		}
		return os.WriteFile(file, []byte("medium"), 0o600)
	}
	for range 2 {
		m, b, err := o.machine(t.Context(), newIdentity(t))
		if err != nil {
			t.Fatal(err)
		}
		if got := readAt(t, m.Disk("disk"), 0); got != "\x00\x00\x00\x00" || b.Medium == "" {
			t.Errorf("the disk begins with %q and the medium is %q, want an empty disk and a medium", got, b.Medium)
		}
		write(t, m.Disk("disk"), "half an installation")
	}
	write(t, filepath.Join(o.Dir, installedFile), "")
	m, b, err := o.machine(t.Context(), newIdentity(t))
	if err != nil {
		t.Fatal(err)
	}
	if got := readAt(t, m.Disk("disk"), 0); got != "half" || b.Medium != "" {
		t.Errorf("the installed disk begins with %q and the medium is %q, want it kept and none", got, b.Medium)
	}
}

func TestFindImageTakesTheNewest(t *testing.T) {
	dir := t.TempDir()
	if _, err := FindImage(dir); err == nil || !strings.Contains(err.Error(), "make image") {
		t.Errorf("FindImage() = %v in an empty directory, want it to say how to make one", err)
	}
	for _, name := range []string{"IncusOS_202601010000.raw", "IncusOS_202611231200.raw", "IncusOS_202611231200.usr-x86-64.raw", "incus.raw", "storage.raw", "base.manifest"} {
		write(t, filepath.Join(dir, name), "")
	}
	i, err := FindImage(dir)
	if err != nil || i.Version != "202611231200" || i.Disk != filepath.Join(dir, "IncusOS_202611231200.raw") {
		t.Errorf("FindImage() = %+v, %v, want version 202611231200", i, err)
	}
	if len(i.Others) != 1 || i.Others["storage"] != filepath.Join(dir, "storage.raw") {
		t.Errorf("the other extensions are %v, want storage alone", i.Others)
	}
}

func TestWordsOfTheGuest(t *testing.T) {
	tests := map[string]struct {
		pattern *regexp.Regexp
		line    string
	}{
		"the installer is done": {installed, "incus-os: install: done on /dev/vda; remove the medium"},
		"the system is ready":   {ready, "incus-os: IncusOS 202611231200 is ready: https://10.0.2.15:8443"},
		"the installer refuses": {refused, "incus-os: cannot install: virtio-disk holds data (a GPT partition table); set `force_install: true` in the install seed to destroy it"},
		"the early boot stops":  {unbootable, "incus-os: IncusOS does not start: This machine cannot be used: there is no TPM 2.0."},
		"the daemon stops":      {unbootable, "incus-os: cannot start: reading /run/incus-os/early.json: unexpected end of JSON input"},
		"the initrd gives up":   {unbootable, "[   20.149620] explain-failed-boot[331]: incus-os: this machine cannot start: a step of the boot did not work."},
		"by the kernel's log":   {said, "[   20.1] osd[1]: incus-os: hello"},
		"the kernel panics":     {kernelPanic, "[   11.3] Kernel panic - not syncing: dm-verity device corrupted"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if !tt.pattern.MatchString(tt.line) {
				t.Errorf("%s does not match %q", tt.pattern, tt.line)
			}
		})
	}
}
