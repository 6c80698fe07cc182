package backup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"

	"github.com/incusos/incusos/api"
)

// Limits of an archive. The first is what incusd passes on: a larger one could
// be fetched and never be put back.
const (
	maxArchive = 1 << 20 // bytes
	maxFile    = 1 << 20 // bytes of one file
	maxTotal   = 8 << 20 // bytes of everything, unpacked
	maxFiles   = 512
)

// schema is the form of the archive. One with a greater number is of a newer
// release and refused.
const schema = 1

// manifestName is the first file of an archive.
const manifestName = "manifest.json"

// A manifest says what an archive holds and where it comes from.
type manifest struct {
	Schema    int     `json:"schema"`
	Version   string  `json:"os_version"`
	MachineID string  `json:"machine_id"`
	Files     []entry `json:"files"`
}

// An entry is a file of an archive.
type entry struct {
	Name   string `json:"name"`
	Size   int    `json:"size_in_bytes"`
	SHA256 string `json:"sha256"`
}

func entryOf(name string, content []byte) entry {
	sum := sha256.Sum256(content)
	return entry{name, len(content), hex.EncodeToString(sum[:])}
}

// fileName is what names of files in an archive look like: one of a document or
// of a key, never one that leads elsewhere.
var fileName = regexp.MustCompile(`^([a-z][a-z0-9-]*\.json|(recovery|zpool|luks|wireguard)\.[A-Za-z0-9][A-Za-z0-9._:-]*\.key)$`)

// isKey reports whether a file is a key by its name.
func isKey(file string) bool { return fileName.MatchString(file) && file[len(file)-4:] == ".key" }

// pack returns the archive of files.
func pack(m manifest, files map[string][]byte) ([]byte, error) {
	m.Schema, m.Files = schema, []entry{}
	total := 0
	for _, name := range slices.Sorted(maps.Keys(files)) {
		m.Files = append(m.Files, entryOf(name, files[name]))
		total += len(files[name])
	}
	list, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	tw := tar.NewWriter(zip)
	err = pour(tw, manifestName, append(list, '\n'))
	for _, e := range m.Files {
		err = errors.Join(err, pour(tw, e.Name, files[e.Name]))
	}
	if err := errors.Join(err, tw.Close(), zip.Close()); err != nil {
		return nil, fmt.Errorf("packing the configuration: %w", err)
	}
	if out.Len() > maxArchive || total > maxTotal-maxFile || len(files) >= maxFiles {
		return nil, api.Errorf(api.Conflict, "the backup would have %d bytes packed, %d unpacked and %d files; it could not be restored, since the limits are %d, %d and %d: shorten what is long, such as lists of certificates",
			out.Len(), total, len(files), maxArchive, maxTotal-maxFile, maxFiles-1)
	}
	return out.Bytes(), nil
}

// pour writes a file. It carries no time, so that equal backups are equal.
func pour(tw *tar.Writer, name string, content []byte) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(content)), Mode: 0o600}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err := tw.Write(content)
	return err
}

// unpack returns the files of an archive, which is complete and as its manifest
// says. It holds nothing in memory that is larger than the limits.
func unpack(data []byte) (manifest, map[string][]byte, error) {
	if len(data) == 0 {
		return manifest{}, nil, api.Errorf(api.Invalid, "the backup is empty; want what `:backup` gave")
	}
	packed := bytes.NewReader(data)
	zip, err := gzip.NewReader(packed)
	if err != nil {
		return manifest{}, nil, api.Errorf(api.Invalid, "the backup is no gzip archive; want what `:backup` gave")
	}
	zip.Multistream(false)
	files, err := untar(zip)
	if err == nil {
		err = ended(zip, packed)
	}
	if err != nil {
		return manifest{}, nil, err
	}
	m, err := readManifest(files)
	if err != nil {
		return manifest{}, nil, err
	}
	return m, files, m.holds(files)
}

// untar reads all files, the manifest too.
func untar(r io.Reader) (map[string][]byte, error) {
	limited := &io.LimitedReader{R: r, N: maxTotal + maxFiles*1024}
	files := make(map[string][]byte)
	total := 0
	for tr := tar.NewReader(limited); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) && limited.N > 0 {
			return files, nil
		}
		if limited.N <= 0 || len(files) == maxFiles {
			return nil, errTooLarge()
		}
		if err != nil {
			return nil, api.Errorf(api.Invalid, "the backup is damaged or cut short: %v", err)
		}
		if err := acceptable(h, files); err != nil {
			return nil, err
		}
		if total += int(h.Size); total > maxTotal {
			return nil, errTooLarge()
		}
		content := make([]byte, h.Size)
		if _, err := io.ReadFull(tr, content); err != nil {
			return nil, api.Errorf(api.Invalid, "the backup is damaged or cut short in %s: %v", h.Name, err)
		}
		files[h.Name] = content
	}
}

func errTooLarge() error {
	return api.Errorf(api.Invalid, "the backup is too large unpacked; want at most %d bytes in %d files", maxTotal, maxFiles)
}

func acceptable(h *tar.Header, files map[string][]byte) error {
	switch _, twice := files[h.Name]; {
	case h.Name != manifestName && !fileName.MatchString(h.Name):
		return api.Errorf(api.Invalid, "the backup holds %.80q, which is neither a document nor a key", h.Name)
	case h.Typeflag != tar.TypeReg:
		return api.Errorf(api.Invalid, "the backup holds %s, which is no regular file", h.Name)
	case h.Size < 0 || h.Size > maxFile:
		return api.Errorf(api.Invalid, "the backup holds %s of %d bytes; want at most %d", h.Name, h.Size, maxFile)
	case twice:
		return api.Errorf(api.Invalid, "the backup holds %s twice", h.Name)
	}
	return nil
}

// ended makes sure that nothing follows the archive but the zeros that tar may
// fill it up with, and that what was read has the checksum in its last bytes.
func ended(zip io.Reader, packed *bytes.Reader) error {
	rest, err := io.ReadAll(io.LimitReader(zip, maxFile))
	switch {
	case err != nil:
		return api.Errorf(api.Invalid, "the backup is damaged or cut short: %v", err)
	case len(rest) == maxFile || len(bytes.TrimLeft(rest, "\x00")) > 0 || packed.Len() > 0:
		return api.Errorf(api.Invalid, "the backup has something after its end")
	}
	return nil
}

// readManifest takes the manifest out of files.
func readManifest(files map[string][]byte) (m manifest, err error) {
	content, ok := files[manifestName]
	if !ok {
		return m, api.Errorf(api.Invalid, "the backup has no %s; want what `:backup` gave", manifestName)
	}
	delete(files, manifestName)
	if err := json.Unmarshal(content, &m); err != nil {
		return m, api.Errorf(api.Invalid, "the %s of the backup: %v", manifestName, err)
	}
	if m.Schema > schema {
		return m, api.Errorf(api.Conflict, "the backup is of a newer release, %.40q, in form %d; this one knows forms up to %d: update this machine first", m.Version, m.Schema, schema)
	}
	if m.Schema < 1 {
		return m, api.Errorf(api.Invalid, "the %s of the backup has no schema; want 1 to %d", manifestName, schema)
	}
	return m, nil
}

// holds reports whether files are those that m lists.
func (m manifest) holds(files map[string][]byte) error {
	listed := make(map[string]bool)
	for _, e := range m.Files {
		content, ok := files[e.Name]
		switch {
		case !ok || listed[e.Name]:
			return api.Errorf(api.Invalid, "the backup lacks %.80q, or lists it twice", e.Name)
		case entryOf(e.Name, content) != e:
			return api.Errorf(api.Invalid, "the backup is damaged: %s is not what it was when the backup was made", e.Name)
		}
		listed[e.Name] = true
	}
	for name := range files {
		if !listed[name] {
			return api.Errorf(api.Invalid, "the backup holds %s, which its %s does not list", name, manifestName)
		}
	}
	return nil
}
