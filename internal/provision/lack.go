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
	problems, may := seal.Check(host.Files), seal.Lack("")
	switch {
	case seed.MissingTPM:
		may = seal.NoTPM
	case seed.MissingSecureBoot:
		may = seal.NoSecureBoot
	}
	for _, p := range problems {
		if len(problems) > 1 || p.Lack == "" || p.Lack != may {
			return "", unfit(p, len(problems) == 1)
		}
	}
	if len(problems) > 0 {
		return may, nil
	}
	switch may {
	case seal.NoTPM:
		return "", api.Fieldf("security.missing_tpm", "is set in the install seed, and there is a TPM 2.0; take it out: nothing is gained by it")
	case seal.NoSecureBoot:
		return "", api.Fieldf("security.missing_secure_boot", "is set in the install seed, and Secure Boot is on; take it out: nothing is gained by it")
	}
	return "", nil
}

// unfit says that the machine lacks something that the seed does not let it lack. A
// machine can do without if that is all that it lacks.
func unfit(p seal.Problem, all bool) error {
	text := fmt.Sprintf("this machine cannot be used: %s. %s", p.What, p.Do)
	field := map[seal.Lack]string{seal.NoSecureBoot: "missing_secure_boot", seal.NoTPM: "missing_tpm"}[p.Lack]
	switch {
	case field != "" && all:
		text += " To do without, and have a machine that is not trusted, set `security." + field + ": true` in the install seed."
	case field != "":
		text += " It lacks more than that, and can do without one thing at most."
	}
	return errors.New(text)
}
