package uefi

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"time"

	"github.com/smallstep/pkcs7"
)

// A Program is a PE file: a boot loader, or a unified kernel image (Microsoft's PE
// Format specification). It is read where it is needed, since kernels are large.
type Program struct {
	Sections []Section

	r            io.ReaderAt
	size         int64
	headers      int64 // length of all headers
	checksum     int64 // offset of the checksum, which no digest covers
	directory    int64 // offset of the directory entry of the certificates, likewise
	certificates span
}

// A Section is a part of a program.
type Section struct {
	Name    string
	Size    int64 // of what is in memory
	Address uint32
	file    span
}

// A span is a part of a file.
type span struct{ offset, size int64 }

const (
	dosHeader      = 64
	coffHeader     = 24 // with the signature "PE"
	sectionHeader  = 40
	maxSections    = 96        // as Windows' loader has it
	maxHeaders     = 64 << 10  // of optional header and section table
	maxSection     = 1 << 30   // a kernel with everything in its initrd
	maxSignatures  = 256 << 10 // of certificates
	certDirectory  = 4         // index among the data directories
	pe32, pe32plus = 0x10b, 0x20b
)

// OpenProgram reads the headers of a PE file of size bytes.
func OpenProgram(r io.ReaderAt, size int64) (*Program, error) {
	p := &Program{r: r, size: size}
	dos, err := p.read(span{0, dosHeader})
	if err != nil || !bytes.HasPrefix(dos, []byte("MZ")) {
		return nil, errors.New("no PE file: it does not begin with MZ")
	}
	at := int64(binary.LittleEndian.Uint32(dos[0x3c:]))
	coff, err := p.read(span{at, coffHeader})
	if err != nil || !bytes.HasPrefix(coff, []byte("PE\x00\x00")) {
		return nil, errors.New("no PE file: the header of PE is not where it should be")
	}
	count, optional := int(binary.LittleEndian.Uint16(coff[6:])), int64(binary.LittleEndian.Uint16(coff[20:]))
	if count > maxSections {
		return nil, fmt.Errorf("PE file with %d sections; want at most %d", count, maxSections)
	}
	if err := p.optional(at+coffHeader, optional); err != nil {
		return nil, err
	}
	table, err := p.read(span{at + coffHeader + optional, int64(count) * sectionHeader})
	if err != nil {
		return nil, fmt.Errorf("PE file: its sections: %w", err)
	}
	for ; len(table) > 0; table = table[sectionHeader:] {
		s, err := p.section(table)
		if err != nil {
			return nil, err
		}
		p.Sections = append(p.Sections, s)
	}
	return p, nil
}

// optional reads the optional header: lengths, and where the certificates are.
func (p *Program) optional(at, size int64) error {
	b, err := p.read(span{at, size})
	if err != nil {
		return fmt.Errorf("PE file: its optional header: %w", err)
	}
	le := binary.LittleEndian
	var directories int // offset of the number of directories
	switch {
	case size >= 112 && le.Uint16(b) == pe32plus:
		directories = 108
	case size >= 96 && le.Uint16(b) == pe32:
		directories = 92
	default:
		return errors.New("PE file: its optional header is neither PE32 nor PE32+")
	}
	p.headers, p.checksum = int64(le.Uint32(b[60:])), at+64
	if p.headers < at+size || p.headers > p.size || p.headers > maxHeaders {
		return fmt.Errorf("PE file: its headers take %d bytes; want %d to %d", p.headers, at+size, min(p.size, maxHeaders))
	}
	entry := directories + 4 + 8*certDirectory
	if le.Uint32(b[directories:]) <= certDirectory || int64(entry+8) > size {
		return nil // a program that cannot be signed
	}
	p.directory = at + int64(entry)
	p.certificates = span{int64(le.Uint32(b[entry:])), int64(le.Uint32(b[entry+4:]))}
	if c := p.certificates; c.size > 0 && (c.offset < p.headers || c.offset+c.size > p.size || c.size > maxSignatures) {
		return fmt.Errorf("PE file: %d bytes of certificates at %d of %d", c.size, c.offset, p.size)
	}
	return nil
}

func (p *Program) section(b []byte) (Section, error) {
	le := binary.LittleEndian
	s := Section{
		Name: string(bytes.TrimRight(b[:8], "\x00")), Size: int64(le.Uint32(b[8:])), Address: le.Uint32(b[12:]),
		file: span{int64(le.Uint32(b[20:])), int64(le.Uint32(b[16:]))},
	}
	if s.file.size > 0 && (s.file.offset < p.headers || s.file.offset+s.file.size > p.size) || s.Size > maxSection {
		return s, fmt.Errorf("PE file: section %q is at %d to %d of %d bytes", s.Name, s.file.offset, s.file.offset+s.file.size, p.size)
	}
	return s, nil
}

// read returns a part of the file, of which the caller bounds the size.
func (p *Program) read(s span) ([]byte, error) {
	if s.offset < 0 || s.size < 0 || s.offset+s.size > p.size {
		return nil, fmt.Errorf("%d bytes at %d of a file of %d", s.size, s.offset, p.size)
	}
	b := make([]byte, s.size)
	_, err := io.ReadFull(io.NewSectionReader(p.r, s.offset, s.size), b)
	return b, err
}

// Section returns the section of a name; false if there is none.
func (p *Program) Section(name string) (Section, bool) {
	i := slices.IndexFunc(p.Sections, func(s Section) bool { return s.Name == name })
	if i < 0 {
		return Section{}, false
	}
	return p.Sections[i], true
}

// Reader reads what a section has in memory: its size, with zeros behind what is
// in the file.
func (p *Program) Reader(s Section) io.Reader {
	n := min(s.Size, s.file.size)
	return io.MultiReader(io.NewSectionReader(p.r, s.file.offset, n), io.LimitReader(zeros{}, s.Size-n))
}

// zeros is an endless reader of zeros.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// Text returns the content of a section that holds at most limit bytes.
func (p *Program) Text(name string, limit int64) ([]byte, error) {
	s, ok := p.Section(name)
	if !ok {
		return nil, fmt.Errorf("there is no section %s", name)
	}
	if s.Size > limit {
		return nil, fmt.Errorf("section %s has %d bytes; want at most %d", name, s.Size, limit)
	}
	return io.ReadAll(p.Reader(s))
}

// Authenticode returns the digest that signatures of p cover, that dbx lists and
// that firmware extends PCR 4 with: everything but the checksum, the entry of the
// certificates and the certificates themselves (Windows Authenticode Portable
// Executable Signature Format, "Calculating the PE Image Hash").
func (p *Program) Authenticode() ([sha256.Size]byte, error) {
	h := sha256.New()
	skip := p.checksum + 4
	spans := []span{{0, p.checksum}}
	if p.directory > 0 {
		spans = append(spans, span{skip, p.directory - skip})
		skip = p.directory + 8
	}
	spans = append(spans, span{skip, p.headers - skip})
	end := p.headers
	for _, s := range slices.SortedFunc(slices.Values(p.Sections), func(a, b Section) int { return cmp.Compare(a.file.offset, b.file.offset) }) {
		if s.file.size > 0 {
			spans = append(spans, s.file)
			end += s.file.size
		}
	}
	if rest := p.size - p.certificates.size - end; rest > 0 {
		spans = append(spans, span{end, rest})
	}
	for _, s := range spans {
		if err := p.hash(h, s); err != nil {
			return [sha256.Size]byte{}, err
		}
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

func (p *Program) hash(h hash.Hash, s span) error {
	if s.size < 0 {
		return errors.New("PE file: its header overlaps itself")
	}
	n, err := io.Copy(h, io.NewSectionReader(p.r, s.offset, s.size))
	if err == nil && n != s.size {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// winCertPKCS is the type of a WIN_CERTIFICATE that holds PKCS #7
// (WIN_CERT_TYPE_PKCS_SIGNED_DATA, section 32.2.4).
const winCertPKCS = 0x0002

// Signers returns the certificates that p is signed with: of each signature that
// is one of this very program. An error says why a signature is none; a program
// without signatures has no signers.
func (p *Program) Signers() ([]*x509.Certificate, error) {
	table, err := p.read(p.certificates)
	if err != nil || len(table) == 0 {
		return nil, err
	}
	digest, err := p.Authenticode()
	if err != nil {
		return nil, err
	}
	var signers []*x509.Certificate
	for len(table) >= 8 {
		n := int64(binary.LittleEndian.Uint32(table))
		if n < 8 || n > int64(len(table)) {
			return nil, fmt.Errorf("PE file: a certificate of %d bytes in %d", n, len(table))
		}
		if binary.LittleEndian.Uint16(table[6:]) == winCertPKCS {
			signer, err := verifySignature(table[8:n], digest[:])
			if err != nil {
				return nil, fmt.Errorf("signature %d: %w", len(signers), err)
			}
			signers = append(signers, signer)
		}
		table = table[min((n+7)&^7, int64(len(table))):]
	}
	return signers, nil
}

// indirectData is an SpcIndirectDataContent: what was signed is a digest.
type indirectData struct {
	Data   asn1.RawValue
	Digest struct {
		Algorithm asn1.RawValue
		Digest    []byte
	}
}

// verifySignature returns who signed digest. Whether that is anybody to be trusted
// is for the firmware's variables to say. Like firmware, it pays no regard to dates.
func verifySignature(der, digest []byte) (*x509.Certificate, error) {
	p7, err := pkcs7.Parse(der)
	if err != nil {
		return nil, fmt.Errorf("no PKCS #7: %w", err)
	}
	signer := p7.GetOnlySigner()
	if signer == nil {
		return nil, errors.New("it has no certificate of its one signer")
	}
	for i, c := range p7.Certificates {
		ageless := *c
		ageless.NotBefore, ageless.NotAfter = time.Time{}, time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
		p7.Certificates[i] = &ageless
	}
	data, err := indirectOf(p7.Content)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(data.Digest.Digest, digest) {
		return nil, errors.New("it is of another program")
	}
	if err := p7.Verify(); err != nil {
		return nil, fmt.Errorf("by %q: %w", signer.Subject, err)
	}
	return signer, nil
}

// indirectOf reads an SpcIndirectDataContent without its header, which is the form
// that is signed (RFC 2315, 9.3).
func indirectOf(content []byte) (indirectData, error) {
	var data indirectData
	der, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: content})
	if err == nil {
		_, err = asn1.Unmarshal(der, &data)
	}
	if err != nil {
		return data, errors.New("it is not of a program")
	}
	return data, nil
}
