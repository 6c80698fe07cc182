package early

import (
	"strings"

	"github.com/incusos/incusos/internal/sys"
)

// A Problem is something about the machine that keeps it from starting.
type Problem struct {
	What string // what is missing
	Do   string // what to change, and where
}

// globalVariable is EFI_GLOBAL_VARIABLE (UEFI 2.10, section 3.3).
const globalVariable = "8be4df61-93ca-11d2-aa0d-00e098032b8c"

// Check looks for what the security of the system rests on: UEFI firmware, an
// enforcing Secure Boot with our keys, and a TPM 2.0.
func Check(files sys.Dir) []Problem {
	if !files.Exists("/sys/firmware/efi") {
		return []Problem{{
			What: "it was not started by UEFI firmware",
			Do:   "In the firmware setup, turn off \"legacy\", \"CSM\" or \"BIOS\" mode and start in UEFI mode.",
		}}
	}
	var problems []Problem
	switch {
	case efiFlag(files, "SecureBoot"):
	case efiFlag(files, "SetupMode"):
		problems = append(problems, Problem{
			What: "Secure Boot is in setup mode: the keys were not enrolled",
			Do:   "Start again with this medium, which enrols them. If that does not help, enrol the keys on its first partition (loader/keys/auto) by hand in the firmware setup.",
		})
	default:
		problems = append(problems, Problem{
			What: "Secure Boot is off",
			Do:   "In the firmware setup, turn Secure Boot on. If the machine then refuses to start, put Secure Boot into \"setup mode\" (often \"clear keys\" or \"custom\") and start again: the keys enrol themselves.",
		})
	}
	if version, err := files.ReadFile("/sys/class/tpm/tpm0/tpm_version_major"); err != nil || strings.TrimSpace(string(version)) != "2" {
		problems = append(problems, Problem{
			What: "there is no TPM 2.0",
			Do:   "In the firmware setup, turn on the TPM (also called fTPM, PTT or security device) in version 2.0; in a virtual machine, add an emulated TPM 2.0.",
		})
	}
	return problems
}

// efiFlag reads a variable of one byte.
func efiFlag(files sys.Dir, name string) bool {
	b, err := sys.ReadVariable(files, name, globalVariable)
	return err == nil && len(b) == 1 && b[0] == 1
}

func explain(screen Console, problems []Problem) {
	var lines []string
	for _, p := range problems {
		lines = append(lines, "This machine cannot be used: "+p.What+".", p.Do)
	}
	screen.Fail("IncusOS does not start", lines...)
}
