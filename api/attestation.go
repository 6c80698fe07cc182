package api

// An Attestation is the document of /os/1.0/system/security/attestation: what the
// machine's TPM says of how it was started, in a form that can be checked elsewhere.
// Nothing in it is to be believed but what the signature of Quote leads to; "incusos
// attest verify" does that. It holds no secrets.
type Attestation struct {
	Nonce   string `json:"nonce"`   // hexadecimal; what was asked for, and is in Quote
	Version string `json:"version"` // of the system, as it says itself

	PCRs []AttestedPCR `json:"pcrs"` // PCRs 0 to 7, 11, 12 and 15 of the SHA-256 bank

	Quote     []byte `json:"quote"`     // TPMS_ATTEST, base64: nonce and digest of the PCRs
	Signature []byte `json:"signature"` // TPMT_SIGNATURE of Quote, base64

	// AttestationKey made Signature: a key that signs nothing but what the TPM says.
	// TPMT_PUBLIC, base64. The same TPM always has the same.
	AttestationKey []byte `json:"attestation_key"`

	// EndorsementKey is what the TPM is known by to its manufacturer, TPMT_PUBLIC,
	// base64. EndorsementCertificates are those that the TPM holds, DER, base64; many
	// emulated TPMs hold none.
	EndorsementKey          []byte   `json:"endorsement_key"`
	EndorsementCertificates [][]byte `json:"endorsement_certificates"`

	// Activated is what was in the credential of the request, hexadecimal: only the
	// TPM with both keys can tell.
	Activated string `json:"activated,omitempty"`

	EventLog  []byte `json:"event_log"`  // of the firmware and the boot loader, TCG PFP form, base64
	SystemLog string `json:"system_log"` // of what systemd measured, as it keeps it: JSON texts
}

// An AttestedPCR is a register of the TPM.
type AttestedPCR struct {
	PCR   int    `json:"pcr"`
	Value string `json:"value"` // hexadecimal SHA-256
}
