package backup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/incusos/incusos/api"
)

func TestPackedIsUnpacked(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		names := rapid.StringMatching(`[a-z][a-z0-9-]{0,9}\.json|(zpool|luks|recovery|wireguard)\.[A-Za-z0-9][A-Za-z0-9._:-]{0,9}\.key`)
		files := rapid.MapOfN(names, rapid.SliceOf(rapid.Byte()), 0, 9).Draw(rt, "files")
		delete(files, manifestName)
		data, err := pack(manifest{Version: "202601010000", MachineID: "0123"}, files)
		if err != nil {
			rt.Fatal(err)
		}
		again, err := pack(manifest{Version: "202601010000", MachineID: "0123"}, files)
		if err != nil || !bytes.Equal(data, again) {
			rt.Fatalf("packed twice, the archives differ: %v", err)
		}
		m, got, err := unpack(data)
		if err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(files, got, cmp.Transformer("text", func(b []byte) string { return string(b) })); diff != "" {
			rt.Errorf("unpacked (-want +got):\n%s", diff)
		}
		if m.Version != "202601010000" || m.MachineID != "0123" || len(m.Files) != len(files) {
			rt.Errorf("the manifest is %+v", m)
		}
	})
}

// A part is an entry of a hand-made archive.
type part struct {
	name, content string
	kind          byte
}

// listing is a manifest of some files.
func listing(files ...part) part {
	m := manifest{Schema: schema, Version: "202601010000"}
	for _, f := range files {
		m.Files = append(m.Files, entryOf(f.name, []byte(f.content)))
	}
	text, _ := json.Marshal(m)
	return part{manifestName, string(text), tar.TypeReg}
}

func tarOf(t testing.TB, parts ...part) []byte {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, p := range parts {
		h := &tar.Header{Typeflag: p.kind, Name: p.name, Size: int64(len(p.content)), Mode: 0o600}
		if p.kind != tar.TypeReg {
			h.Linkname, h.Size, p.content = p.content, 0, ""
		}
		_, err := tw.Write(nil)
		if err := errors.Join(err, tw.WriteHeader(h)); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(p.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestUnpackRefuses(t *testing.T) {
	doc := part{"network.json", `{"schema":1,"config":{}}`, tar.TypeReg}
	good := zipped(t, tarOf(t, listing(doc), doc))
	if _, _, err := unpack(good); err != nil {
		t.Fatalf("a good archive: %v", err)
	}
	archived := func(parts ...part) []byte { return zipped(t, tarOf(t, parts...)) }
	many := []part{}
	for i := range maxFiles + 1 {
		many = append(many, part{"zpool.p" + strings.Repeat("x", i%90) + string(rune('a'+i/90)) + ".key", "", tar.TypeReg})
	}
	tests := map[string]struct {
		data []byte
		want string
	}{
		"nothing":                 {nil, "the backup is empty"},
		"no archive":              {[]byte("hello"), "no gzip archive"},
		"a stump":                 {good[:5], "no gzip archive"},
		"one without its end":     {good[:len(good)-9], "damaged or cut short"},
		"one without checksum":    {good[:len(good)-4], "damaged or cut short"},
		"a changed byte":          {flip(good, len(good)-6), "damaged or cut short"},
		"two archives":            {append(bytes.Clone(good), good...), "something after its end"},
		"something after the tar": {zipped(t, append(tarOf(t, listing(doc), doc), "more"...)), "something after its end"},
		"zeros inside zeros":      {zipped(t, make([]byte, 64<<20)), "after its end"},
		"a huge file":             {archived(part{"network.json", strings.Repeat("\x00", maxFile+1), tar.TypeReg}), "want at most 1048576"},
		"many large files":        {archived(large(9)...), "too large unpacked"},
		"too many files":          {archived(many...), "too large unpacked"},
		"a directory":             {archived(listing(doc), part{"network.json", "", tar.TypeDir}), "network.json"},
		"a link":                  {archived(part{"network.json", "/etc/shadow", tar.TypeSymlink}), "no regular file"},
		"a name that leads out":   {archived(part{"../network.json", "", tar.TypeReg}), `"../network.json", which is neither`},
		"an absolute name":        {archived(part{"/etc/network.json", "", tar.TypeReg}), "which is neither"},
		"a name of something":     {archived(part{"audit.log", "", tar.TypeReg}), "which is neither"},
		"a file twice":            {archived(listing(doc), doc, doc), "network.json twice"},
		"no manifest":             {archived(doc), "has no manifest.json"},
		"a manifest of nonsense":  {archived(part{manifestName, "[]", tar.TypeReg}), "the manifest.json of the backup"},
		"a manifest without form": {archived(part{manifestName, "{}", tar.TypeReg}), "has no schema"},
		"a newer form":            {archived(part{manifestName, `{"schema":2,"os_version":"203001010000"}`, tar.TypeReg}), `newer release, "203001010000", in form 2`},
		"a file not listed":       {archived(listing(), doc), "which its manifest.json does not list"},
		"a file that lacks":       {archived(listing(doc)), `lacks "network.json"`},
		"a file listed twice":     {archived(listing(doc, doc), doc), "lists it twice"},
		"a file that changed":     {archived(listing(doc), part{doc.name, doc.content + " ", tar.TypeReg}), "network.json is not what it was"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, _, err := unpack(tt.data)
			if _, ok := errors.AsType[*api.Error](err); !ok || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("unpack() = %v, want %q for the operator", err, tt.want)
			}
		})
	}
}

func flip(data []byte, at int) []byte {
	data = bytes.Clone(data)
	data[at] ^= 1
	return data
}

// large returns n files that are as large as they may be.
func large(n int) (parts []part) {
	for i := range n {
		parts = append(parts, part{"zpool." + string(rune('a'+i)) + ".key", strings.Repeat("\x00", maxFile), tar.TypeReg})
	}
	return parts
}

func TestBackupThatCouldNotBeRestoredIsRefused(t *testing.T) {
	rnd := make([]byte, maxArchive+1)
	for i := range rnd { // a text that does not shrink
		rnd[i] = byte(i*i>>3) ^ byte(i>>7) ^ byte(i*2654435761>>13)
	}
	many := make(map[string][]byte)
	for i := range maxFiles {
		many["zpool."+strings.Repeat("y", 1+i%90)+string(rune('a'+i/90))+".key"] = nil
	}
	for name, files := range map[string]map[string][]byte{
		"packed too long":   {"network.json": rnd, "storage.json": bytes.Clone(rnd)},
		"unpacked too long": {"network.json": make([]byte, maxTotal)},
		"too many":          many,
	} {
		_, err := pack(manifest{}, files)
		if e, ok := errors.AsType[*api.Error](err); !ok || e.Kind != api.Conflict {
			t.Errorf("%s: pack() = %v, want a conflict", name, err)
		}
	}
}

// Whatever comes in, what comes out has plain names, is within the limits, and
// can be packed and unpacked again.
func FuzzUnpack(f *testing.F) {
	doc := part{"network.json", `{"schema":1,"config":{}}`, tar.TypeReg}
	for _, raw := range [][]byte{tarOf(f, listing(doc), doc), tarOf(f), make([]byte, 4096)} {
		f.Add(zipped(f, raw), false)
		f.Add(raw, true)
	}
	f.Fuzz(func(t *testing.T, data []byte, zip bool) {
		if zip {
			data = zipped(t, data)
		}
		m, files, err := unpack(data)
		if err != nil {
			return
		}
		total := 0
		for name, content := range files {
			if !fileName.MatchString(name) || strings.ContainsAny(name, "/\\\x00") {
				t.Errorf("a file named %q", name)
			}
			total += len(content)
		}
		if total > maxTotal || len(files) > maxFiles {
			t.Errorf("%d bytes in %d files", total, len(files))
		}
		if again, err := pack(m, files); err == nil {
			if _, _, err := unpack(again); err != nil {
				t.Errorf("packed again: %v", err)
			}
		}
	})
}
