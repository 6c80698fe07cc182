package publish

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/diskfs/go-diskfs"
	"github.com/diskfs/go-diskfs/disk"
	"github.com/diskfs/go-diskfs/partition/gpt"

	"github.com/incusos/incusos/internal/attest"
	"github.com/incusos/incusos/internal/repo"
)

const largestLoader = 4 << 20

// Measure reckons what a build leaves in the registers of a TPM. The boot loader is left
// out where there is no disk image that it could be read from.
func Measure(b Build) (attest.Measurements, error) {
	var loader []byte
	if b.Disk != "" {
		var err error
		if loader, err = readLoader(b.Disk); err != nil {
			return attest.Measurements{}, fmt.Errorf("the boot loader in %q: %w", b.Disk, err)
		}
	}
	f, err := os.Open(b.UKI)
	if err != nil {
		return attest.Measurements{}, err
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err != nil {
		return attest.Measurements{}, err
	}
	m, err := attest.Measure(b.Version, f, info.Size(), loader)
	if err != nil {
		return m, fmt.Errorf("%q: %w", b.UKI, err)
	}
	return m, nil
}

// readLoader returns the boot loader on the boot partition of a disk image.
func readLoader(image string) ([]byte, error) {
	d, err := diskfs.Open(image, diskfs.WithOpenMode(diskfs.ReadOnly))
	if err != nil {
		return nil, err
	}
	defer d.Close() //nolint:errcheck // only read
	number, err := bootPartition(d)
	if err != nil {
		return nil, err
	}
	fat, err := d.GetFilesystem(number)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"EFI/BOOT/BOOTX64.EFI", "EFI/BOOT/BOOTAA64.EFI"} {
		f, err := fat.Open(name)
		if err != nil {
			continue
		}
		b, err := io.ReadAll(io.LimitReader(f, largestLoader+1))
		if err == nil && len(b) > largestLoader {
			err = fmt.Errorf("%s has more than %d bytes", name, largestLoader)
		}
		return b, err
	}
	return nil, fmt.Errorf("there is none in EFI/BOOT")
}

// bootPartition returns the number of the partition labelled esp.
func bootPartition(d *disk.Disk) (int, error) {
	table, ok := d.Table.(*gpt.Table)
	if !ok {
		return 0, fmt.Errorf("it has no GPT")
	}
	for i, p := range table.Partitions {
		if strings.EqualFold(p.Name, "esp") {
			return i + 1, nil
		}
	}
	return 0, fmt.Errorf("it has no partition labelled esp")
}

// measurements adds what the release leaves in the registers of a TPM. A kernel image
// that is no program, as in trials of a repository, leaves nothing, nor do applications
// alone.
func (m *maker) measurements(b Build) error {
	if b.Usr == "" {
		return nil
	}
	program, err := isProgram(b.UKI)
	if err != nil || !program {
		return err
	}
	measured, err := Measure(b)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(measured, "", "  ")
	if err != nil {
		return err
	}
	_, err = m.add("os/measurements.json", repo.File{Kind: repo.KindMeasured, Component: "os"}, bytes.NewReader(text), int64(len(text)))
	return err
}

// isProgram reports whether a file begins as those for UEFI do.
func isProgram(name string) (bool, error) {
	f, err := os.Open(name)
	if err != nil {
		return false, err
	}
	defer f.Close() //nolint:errcheck // only read
	var mark [2]byte
	_, err = f.ReadAt(mark[:], 0)
	return err == nil && string(mark[:]) == "MZ", nil
}
