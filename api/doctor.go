package api

// A SecureBootDoctor is the document of /os/1.0/debug/secureboot/doctor: whether the
// next start will unlock the disk by itself, and all that this depends on.
type SecureBootDoctor struct {
	Unlocks  bool            `json:"unlocks_by_itself"` // the kernel image that is next does; with a PIN if there is one
	Verdict  string          `json:"verdict"`           // the same in a sentence
	Findings []DoctorFinding `json:"findings"`          // what is not as it should be, the worst first

	SecureBoot   bool                `json:"secure_boot_enabled"`
	Certificates []DoctorCertificate `json:"certificates"` // that the firmware has
	Kernels      []DoctorKernel      `json:"kernels"`      // in the order in which they are tried
	Bindings     []DoctorBinding     `json:"bindings"`     // of the disk to the TPM
	PCRs         []DoctorPCR         `json:"pcrs"`
	Events       []DoctorEvent       `json:"events"` // of these PCRs, in the order of the log
}

// A DoctorFinding is something that is not as it should be.
type DoctorFinding struct {
	Serious bool   `json:"serious"` // the next start needs the recovery key, or does not come about
	What    string `json:"what"`
	Do      string `json:"do"` // what changes it
}

// A DoctorCertificate is a certificate that the firmware has.
type DoctorCertificate struct {
	Type        string `json:"type"`        // "PK", "KEK", "db" or "dbx"
	Fingerprint string `json:"fingerprint"` // SHA-256 of the DER form, hexadecimal
	Subject     string `json:"subject"`
	Ours        bool   `json:"ours"` // the image was built with it
}

// A DoctorKernel is a kernel image on the boot partition: one for each slot.
type DoctorKernel struct {
	File    string `json:"file"`
	Version string `json:"version"`
	Running bool   `json:"running"`
	Signer  string `json:"signer"`  // "" nobody
	Starts  bool   `json:"starts"`  // the firmware takes it
	Unlocks bool   `json:"unlocks"` // and the TPM then gives the key
	Why     string `json:"why"`     // why not; "" if it does
	PCR7    string `json:"pcr7"`    // predicted, hexadecimal; "" if that is not possible
	PCR11   string `json:"pcr11"`   // likewise, in the initrd

	// PCR4 is likewise, and only there where Secure Boot is off: root is bound to it then.
	PCR4 string `json:"pcr4,omitempty"`
}

// A DoctorBinding is a key slot that a TPM opens.
type DoctorBinding struct {
	Slot int  `json:"slot"`
	PIN  bool `json:"pin"`
	// Image says that it opens for one kernel image; else for any that the PCR key has
	// signed, older releases among them.
	Image bool   `json:"image"`
	Now   string `json:"now"`  // why it would not have opened the disk at this start; "" if it would
	Next  string `json:"next"` // why it will not at the next; "" if it will
}

// A DoctorPCR is a register of the TPM, hexadecimal SHA-256.
type DoctorPCR struct {
	PCR      int    `json:"pcr"`
	Measured string `json:"measured"` // what the TPM holds
	Replayed string `json:"replayed"` // what the event log leads to
	Expected string `json:"expected"` // what it will hold at the next start; "" if that cannot be told
}

// A DoctorEvent is a measurement of this start, of the next, or of both; digests are
// hexadecimal SHA-256.
type DoctorEvent struct {
	PCR      int    `json:"pcr"`
	Type     string `json:"type"`                // such as "EV_EFI_VARIABLE_DRIVER_CONFIG"
	About    string `json:"about"`               // in words
	Measured string `json:"measured"`            // "" only the next start measures it
	Expected string `json:"expected"`            // "" only this start measured it
	LastGood string `json:"last_good,omitempty"` // at the last start that unlocked by itself, where that was another
}
