//go:build vm

package vm_test

import "regexp"

// says is everything that scenarios wait for, apart from what vm.Running knows
// by itself. Our own words are those of packages early, seal, install and seed,
// behind the title that package early or daemon gives to a failure; the others
// are those of the firmware, systemd-boot and the kernel.
var says = struct {
	enrolled, ready, kernel             *regexp.Regexp
	noTPM, noSecureBoot, occupied       *regexp.Regexp
	mayNotTPM, warnedTPM, untrustedTPM  *regexp.Regexp
	malformed, corrupted, notAuthorised *regexp.Regexp
	askKey, noKVM, nothingGained        *regexp.Regexp
	reachable, byRecoveryKey            *regexp.Regexp
	starting, firstStart                *regexp.Regexp
	copying, copied                     *regexp.Regexp
	mayNot, warned, untrusted, unsigned *regexp.Regexp
}{
	enrolled: regexp.MustCompile(`Secure Boot keys successfully enrolled`),
	ready:    regexp.MustCompile(`is ready: https://`),
	kernel:   regexp.MustCompile(`EFI stub: |Linux version |^\[ *\d+\.\d+\] |incus-os: `),

	noTPM:        regexp.MustCompile(`\bincus-os: IncusOS does not start: .*there is no TPM 2\.0`),
	mayNotTPM:    regexp.MustCompile(`\bincus-os: cannot install: this machine cannot be used: there is no TPM 2\.0`),
	noSecureBoot: regexp.MustCompile(`\bincus-os: IncusOS does not start: .*Secure Boot is off`),
	occupied:     regexp.MustCompile(`\bincus-os: cannot install: .* holds data \(`),
	malformed:    regexp.MustCompile(`\bincus-os: cannot install: seed-data: install\.yaml:2:\d+: `),

	corrupted:     regexp.MustCompile(`dm-verity device corrupted|data block \d+ is corrupted`),
	notAuthorised: regexp.MustCompile(`(?i)Access Denied|Security Violation|Verification failed|No bootable option`),

	askKey:        regexp.MustCompile(`\bincus-os: Recovery key:$`),
	reachable:     regexp.MustCompile(`incus-os: reachable at: https://`),
	byRecoveryKey: regexp.MustCompile(`root was unlocked with the recovery key`),

	starting:   regexp.MustCompile(`incus-os: starting: `),
	firstStart: regexp.MustCompile(`first start: making the encrypted root partition`),

	copying: regexp.MustCompile(`incus-os: installing incus\b`),
	copied:  regexp.MustCompile(`incus-os: installing incus.*100`),

	mayNot:       regexp.MustCompile(`\bincus-os: cannot install: this machine cannot be used: Secure Boot is off`),
	warned:       regexp.MustCompile(`\bincus-os: this machine will not be trusted: Secure Boot is off`),
	warnedTPM:    regexp.MustCompile(`\bincus-os: this machine will not be trusted: There is no TPM 2\.0`),
	untrusted:    regexp.MustCompile(`\bincus-os: not trusted: Secure Boot is off`),
	untrustedTPM: regexp.MustCompile(`\bincus-os: not trusted: the TPM is one in software`),

	unsigned: regexp.MustCompile(`\bincus-os: IncusOS does not start: .*nobody has signed it`),

	nothingGained: regexp.MustCompile(`\bincus-os: cannot install: .*security\.missing_tpm: is set .*nothing is gained by it`),

	noKVM: regexp.MustCompile(`KVM`),
}
