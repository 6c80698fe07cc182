//go:build vm

package vm_test

import (
	"context"
	"errors"
	"image"
	_ "image/png" // the format of a screenshot
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"

	"github.com/incusos/incusos/internal/vm"
	"github.com/incusos/incusos/test/vm/incus"
)

// showsKey is a seed that has the recovery key shown as a code.
func showsKey(t *testing.T) func(dir string) {
	return func(dir string) {
		text := "version: \"1\"\nshow_recovery_key: true\n"
		if err := os.WriteFile(filepath.Join(dir, "security.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// keyOnScreen photographs the screen of a machine as an operator would, reads the
// recovery key from it, and expects it to go when it is told that somebody has it.
func keyOnScreen(t *testing.T, m *vm.Machine, r *vm.Running, c *incus.Client) {
	key := recoveryKey(t, r, c)
	ctx := within(t, r, time.Minute)
	err := retry(ctx, func() error {
		text, err := codeOn(ctx, m, r)
		if err == nil && text != key {
			t.Error("the code on the screen is not the recovery key")
		}
		return err
	})
	if err != nil {
		t.Fatalf("there is no code on the screen: %v", err)
	}
	if err := c.Post(ctx, "/os/1.0/system/security/:retrieved", nil, nil); err != nil {
		t.Fatal(err)
	}
	err = retry(ctx, func() error {
		if _, err := codeOn(ctx, m, r); err == nil {
			return errors.New("the code is still on the screen")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// codeOn reads the code on the screen of a machine.
func codeOn(ctx context.Context, m *vm.Machine, r *vm.Running) (string, error) {
	name := filepath.Join(m.Dir(), screen)
	if err := r.Monitor.Screenshot(ctx, name); err != nil {
		return "", err
	}
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	shown, _, err := image.Decode(f)
	if err != nil {
		return "", err
	}
	bitmap, err := gozxing.NewBinaryBitmapFromImage(shown)
	if err != nil {
		return "", err
	}
	found, err := qrcode.NewQRCodeReader().Decode(bitmap, nil)
	if err != nil {
		return "", err
	}
	return found.GetText(), nil
}
