package seal

import (
	"strings"

	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/uefi"
)

// A Problem is something about the machine that keeps it from starting.
type Problem struct {
	What string // what is missing
	Do   string // what to change, and where
	Lack Lack   // what it is, if the owner may choose to do without that
}

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
			Lack: NoSecureBoot,
		})
	default:
		problems = append(problems, Problem{
			What: "Secure Boot is off",
			Do:   "In the firmware setup, turn Secure Boot on. If the machine then refuses to start, put Secure Boot into \"setup mode\" (often \"clear keys\" or \"custom\") and start again: the keys enrol themselves.",
			Lack: NoSecureBoot,
		})
	}
	if !hasTPM(files) {
		problems = append(problems, Problem{
			What: "there is no TPM 2.0",
			Do:   "In the firmware setup, turn on the TPM (also called fTPM, PTT or security device) in version 2.0; in a virtual machine, add an emulated TPM 2.0.",
			Lack: NoTPM,
		})
	}
	return problems
}

// efiFlag reads a variable of one byte.
func efiFlag(files sys.Dir, name string) bool {
	b, err := sys.ReadVariable(files, name, string(uefi.GlobalVariable))
	return err == nil && len(b) == 1 && b[0] == 1
}

func hasTPM(files sys.Dir) bool {
	version, err := files.ReadFile("/sys/class/tpm/tpm0/tpm_version_major")
	return err == nil && strings.TrimSpace(string(version)) == "2"
}
