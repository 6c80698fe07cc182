package provision

import (
	"errors"
	"fmt"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/seal"
	"github.com/incusos/incusos/internal/sys"
)

// warnTime is how long the installer shows what a machine with less does not protect,
// before it changes anything.
const warnTime = 30 * time.Second

// allowed returns what the machine lacks, if the seed allows that, or an error that says
// what to change: the machine or the seed.
func allowed(host sys.Host, seed api.SeedInstallSecurity) (seal.Lack, error) {
	if seed.MissingTPM {
		return "", api.Fieldf("security.missing_tpm", "this release does not offer a software TPM; take it out of the install seed, and use a machine with a TPM 2.0")
	}
	var lacks seal.Lack
	for _, p := range seal.Check(host.Files) {
		if p.Lack != seal.NoSecureBoot || !seed.MissingSecureBoot {
			return "", unfit(p)
		}
		lacks = p.Lack
	}
	if seed.MissingSecureBoot && lacks == "" {
		return "", api.Fieldf("security.missing_secure_boot", "is set in the install seed, and Secure Boot is on; take it out: nothing is gained by it")
	}
	return lacks, nil
}

// unfit says that the machine lacks something that the seed does not let it lack.
func unfit(p seal.Problem) error {
	text := fmt.Sprintf("this machine cannot be used: %s. %s", p.What, p.Do)
	if p.Lack == seal.NoSecureBoot {
		text += " To do without, and have a machine that is not trusted, set `security.missing_secure_boot: true` in the install seed."
	}
	return errors.New(text)
}
