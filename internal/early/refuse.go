package early

import (
	"context"
	"fmt"

	"github.com/incusos/incusos/internal/seal"
	"github.com/incusos/incusos/internal/sys"
)

// certificates are those that the image takes programs by.
const certificates = "/sysusr/usr/lib/verity.d"

// refuse shows what keeps the machine from starting.
func refuse(screen Console, problems []seal.Problem) error {
	var lines []string
	for _, p := range problems {
		lines = append(lines, "This machine cannot be used: "+p.What+".", p.Do)
	}
	screen.Fail("IncusOS does not start", lines...)
	return &RefusedError{problems}
}

// tolerate returns what keeps a machine from starting that has one problem its owner may
// have chosen: that problem unless the machine was installed so, or one with what was
// started. Of a medium its installer asks whether the owner has; see package provision.
func tolerate(host sys.Host, disk sys.Disk, problems []seal.Problem) ([]seal.Problem, error) {
	esp, ok := disk.Partition(espLabel)
	if !ok {
		return nil, fmt.Errorf("the disk %s has no boot partition: none is labelled %s", disk.Path, espLabel)
	}
	if !isMedium(disk) {
		marked, err := seal.ReadMark(host, esp.Path, problems[0].Lack)
		if err != nil {
			return nil, err
		}
		if !marked {
			return problems, nil
		}
	}
	if problems[0].Lack == seal.NoTPM {
		return nil, nil // Secure Boot has seen to what was started
	}
	if err := seal.CheckPrograms(host, esp.Path, certificates); err != nil {
		return []seal.Problem{{
			What: "Secure Boot is off, and what was started is not what it should be: " + err.Error(),
			Do:   "If nobody changed this machine on purpose, do not type a recovery key; turn Secure Boot on, or install again from a medium that you trust.",
		}}, nil
	}
	return nil, nil
}

// standIn starts the TPM in software of a machine that was installed to do without one.
func standIn(ctx context.Context, host sys.Host, screen Console, disk sys.Disk, res *Result) error {
	if res.Lacks != seal.NoTPM {
		return nil
	}
	esp, ok := disk.Partition(espLabel)
	if !ok {
		return fmt.Errorf("the disk %s has no boot partition: none is labelled %s", disk.Path, espLabel)
	}
	_, hasRoot := disk.Partition(rootLabel)
	warning, err := seal.StartSoftwareTPM(ctx, host, esp.Path, !hasRoot)
	if warning != "" {
		screen.Say("%s", warning)
		res.Warnings = append(res.Warnings, warning)
	}
	return err
}
