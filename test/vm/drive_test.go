//go:build vm

package vm_test

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/vm"
	"github.com/incusos/incusos/test/vm/incus"
)

const (
	spareName = "spare"
	spareID   = "/dev/disk/by-id/virtio-" + spareName
)

// encryptedDrive has a machine encrypt a second drive, expects it to be open after the
// next start, its key to be shown, and nothing of the header to be left once it is wiped.
func encryptedDrive(t *testing.T, m *vm.Machine, id vm.Identity) {
	if err := m.AddDisk(vm.Disk{Name: spareName, Size: 256 << 20}); err != nil {
		t.Fatal(err)
	}
	r := start(t, m, vm.Boot{})
	if _, err := r.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := incus.New(fmt.Sprintf("https://127.0.0.1:%d", r.Port), id.TLS())
	trusted(t, r, c)
	began := time.Now()
	driveAction(t, r, c, "encrypt-drive")
	t.Logf("encrypted in %v", time.Since(began).Round(100*time.Millisecond))
	if head := spareHead(t, m); !bytes.HasPrefix(head, []byte("LUKS\xba\xbe")) {
		t.Errorf("the drive begins with %q, want a LUKS header", head)
	}
	isEncrypted(t, r, c, true)

	if err := c.Post(within(t, r, time.Minute), "/os/1.0/system/:reboot", nil, nil); err != nil {
		t.Fatal(err)
	}
	restarted(t, r, c, says.starting)
	isEncrypted(t, r, c, true)
	var security api.SystemSecurity
	if err := c.Get(within(t, r, 20*time.Second), "/os/1.0/system/security", &security); err != nil {
		t.Fatal(err)
	}
	if key := security.State.DriveRecoveryKeys[spareID]; len(key) != 44 {
		t.Errorf("the key of the drive has %d characters, want 32 bytes in base64", len(key))
	}
	err := c.Post(within(t, r, 20*time.Second), "/os/1.0/system/storage/:encrypt-drive", map[string]any{"id": spareID}, nil)
	if err == nil || !strings.Contains(err.Error(), "is encrypted already") {
		t.Errorf("encrypting it again answers %v", err)
	}

	driveAction(t, r, c, "wipe-drive")
	isEncrypted(t, r, c, false)
	if head := spareHead(t, m); !bytes.Equal(head, make([]byte, len(head))) {
		t.Errorf("the wiped drive begins with %q", head)
	}
}

func driveAction(t *testing.T, r *vm.Running, c *incus.Client, action string) {
	t.Helper()
	if err := c.Post(within(t, r, time.Minute), "/os/1.0/system/storage/:"+action, map[string]any{"id": spareID}, nil); err != nil {
		t.Fatalf("%s: %v", action, err)
	}
}

// spareHead returns how the drive begins, as the machine wrote it.
func spareHead(t *testing.T, m *vm.Machine) []byte {
	t.Helper()
	f, err := os.Open(m.Disk(spareName))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	head := make([]byte, 16)
	if _, err := f.ReadAt(head, 0); err != nil {
		t.Fatal(err)
	}
	return head
}

func isEncrypted(t *testing.T, r *vm.Running, c *incus.Client, want bool) {
	t.Helper()
	var storage api.SystemStorage
	if err := c.Get(within(t, r, 20*time.Second), "/os/1.0/system/storage", &storage); err != nil {
		t.Fatal(err)
	}
	for _, d := range storage.State.Drives {
		if d.ID == spareID && d.Encrypted == want && (d.EncryptedID == "/dev/mapper/luks-virtio-"+spareName) == want {
			return
		}
	}
	t.Errorf("drives are %+v, want %s with encrypted: %t", storage.State.Drives, spareID, want)
}
