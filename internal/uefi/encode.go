package uefi

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
)

// EncodeEventLog returns events as a log with the bank of SHA-256 alone, which is
// what ParseEventLog reads.
func EncodeEventLog(events []Event) []byte {
	le := binary.LittleEndian
	id := slices.Concat(specID, []byte{0, 0, 0, 0, 0, 2, 0, 2, 1, 0, 0, 0}) // platform class, versions, one algorithm
	id = append(le.AppendUint16(le.AppendUint16(id, algorithmSHA256), sha256.Size), 0)
	b := le.AppendUint32(le.AppendUint32(nil, 0), uint32(EventNoAction))
	b = append(b, make([]byte, sha1Size)...)
	b = append(le.AppendUint32(b, uint32(len(id))), id...) //nolint:gosec // some thirty
	for _, e := range events {
		b = le.AppendUint32(b, uint32(e.PCR)) //nolint:gosec // NoPCR becomes 0xffffffff
		b = le.AppendUint32(b, uint32(e.Type))
		b = le.AppendUint16(le.AppendUint32(b, 1), algorithmSHA256)
		b = append(b, e.Digest[:]...)
		b = append(le.AppendUint32(b, uint32(len(e.Data))), e.Data...) //nolint:gosec // logs are small
	}
	return b
}

// Encode is the reverse of Event.Image.
func (i ImageEvent) Encode() []byte {
	le := binary.LittleEndian
	var path []byte
	if i.OnDisk {
		const drive = 42
		path = append(le.AppendUint16([]byte{nodeMedia, mediaDrive}, drive), make([]byte, drive-4)...)
	}
	if i.Payload {
		id, err := appendGUID(nil, stubPayload)
		if err != nil {
			return nil // never: it is one
		}
		path = append(append(path, nodeMedia, mediaVendor, 4+guidSize, 0), id...)
	}
	if i.Path != "" {
		text := append(utf16Bytes(i.Path), 0, 0)
		path = le.AppendUint16(append(path, nodeMedia, mediaFilePath), uint16(4+len(text))) //nolint:gosec // names are short
		path = append(path, text...)
	}
	path = append(path, nodeEnd, 0xff, 4, 0)
	b := le.AppendUint64(make([]byte, imageHeader-8), uint64(len(path)))
	return append(b, path...)
}

// A Part is a section of a program to be made.
type Part struct {
	Name string // at most 8 bytes
	Data []byte
}

// EncodeProgram returns a PE file with the sections of parts and no code, signed by
// whoever is given: something that measures and verifies as a real one does, for
// machines that are only pretended.
func EncodeProgram(parts []Part, by ...Signer) ([]byte, error) {
	const align, optional = 512, 240
	le := binary.LittleEndian
	headers := (dosHeader + coffHeader + optional + sectionHeader*len(parts) + align - 1) / align * align
	b := make([]byte, headers)
	copy(b, "MZ")
	le.PutUint32(b[0x3c:], dosHeader)
	coff := b[dosHeader:]
	copy(coff, "PE\x00\x00\x64\x86") // x86-64
	le.PutUint16(coff[6:], uint16(len(parts)))
	le.PutUint16(coff[20:], optional)
	opt := coff[coffHeader:]
	le.PutUint16(opt, pe32plus)
	le.PutUint32(opt[60:], uint32(headers))
	le.PutUint32(opt[108:], 16) // directories
	for i, p := range parts {
		h := opt[optional+sectionHeader*i:]
		copy(h[:8], p.Name)
		size := (len(p.Data) + align - 1) / align * align
		le.PutUint32(h[8:], uint32(len(p.Data)))      //nolint:gosec // small
		le.PutUint32(h[12:], uint32(0x1000000*(i+1))) //nolint:gosec // small
		le.PutUint32(h[16:], uint32(size))            //nolint:gosec // small
		le.PutUint32(h[20:], uint32(len(b)))          //nolint:gosec // small
		b = append(append(b, p.Data...), make([]byte, size-len(p.Data))...)
		opt = b[dosHeader+coffHeader:] // the file may have moved
	}
	for _, s := range by {
		var err error
		if b, err = signProgram(b, s); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// signProgram adds a signature to a PE file that EncodeProgram made.
func signProgram(b []byte, by Signer) ([]byte, error) {
	p, err := OpenProgram(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, err
	}
	digest, err := p.Authenticode()
	if err != nil {
		return nil, err
	}
	der, err := signIndirect(digest, by)
	if err != nil {
		return nil, fmt.Errorf("signing a program: %w", err)
	}
	le := binary.LittleEndian
	b = slices.Clone(b)
	entry := b[p.directory:]
	if p.certificates.size == 0 {
		le.PutUint32(entry, uint32(len(b))) //nolint:gosec // small
	}
	cert := le.AppendUint16(le.AppendUint16(le.AppendUint32(nil, uint32(8+len(der))), winRevision), winCertPKCS) //nolint:gosec // small
	cert = append(cert, der...)
	cert = append(cert, make([]byte, -len(cert)&7)...)
	le.PutUint32(entry[4:], uint32(p.certificates.size)+uint32(len(cert))) //nolint:gosec // small
	return append(b, cert...), nil
}

// signIndirect returns the PKCS #7 signature of a program's digest.
func signIndirect(digest [sha256.Size]byte, by Signer) ([]byte, error) {
	algorithm := pkix.AlgorithmIdentifier{Algorithm: oidSHA256(), Parameters: asn1.NullRawValue}
	var data struct {
		Data   struct{ Type asn1.ObjectIdentifier }
		Digest struct {
			Algorithm pkix.AlgorithmIdentifier
			Digest    []byte
		}
	}
	data.Data.Type = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 15} // SPC_PE_IMAGE_DATA
	data.Digest.Algorithm, data.Digest.Digest = algorithm, digest[:]
	content, err := asn1.Marshal(data)
	if err != nil {
		return nil, err
	}
	var sequence asn1.RawValue
	if _, err := asn1.Unmarshal(content, &sequence); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(sequence.Bytes)
	sig, err := by.Key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	inner, err := asn1.Marshal(signedData{
		Version:          1,
		DigestAlgorithms: []pkix.AlgorithmIdentifier{algorithm},
		Content: contentInfo{
			Type:    asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 4}, // SPC_INDIRECT_DATA
			Content: asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: content},
		},
		Certificates: asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: by.Certificate.Raw},
		Signers: []signerInfo{{
			Version:            1,
			Certificate:        issuerAndSerial{asn1.RawValue{FullBytes: by.Certificate.RawIssuer}, by.Certificate.SerialNumber},
			DigestAlgorithm:    algorithm,
			SignatureAlgorithm: pkix.AlgorithmIdentifier{Algorithm: oidRSA(), Parameters: asn1.NullRawValue},
			Signature:          sig,
		}},
	})
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(contentInfo{Type: oidSignedData(), Content: asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: inner}})
}

// SignPolicy returns the content of a section .pcrsig: that key vouches for PCR 11
// holding value.
func SignPolicy(value [sha256.Size]byte, key crypto.Signer, fingerprint string) ([]byte, error) {
	policy := PCRPolicy{}.PCR(11, value).Digest()
	sum := sha256.Sum256(policy[:])
	sig, err := key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{"sha256": []map[string]any{
		{"pcrs": []int{11}, "pkfp": fingerprint, "pol": hex.EncodeToString(policy[:]), "sig": sig},
	}})
}
