package seal

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"strings"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/uefi"
)

const (
	maxUpdate  = 64 << 10 // bytes of one update; a certificate and a signature take 3000
	maxUpdates = 64

	// providedFile lists PCR 2, 4, 7 and 11 of starts to come that root was bound to, a
	// line each, until the next start.
	providedFile = "/run/incus-os/provided"
)

// A databaseUpdate is a signed update of a Secure Boot variable.
type databaseUpdate struct {
	file     string
	variable uefi.Variable // with the attributes that its signature is for
	raw      []byte
	payload  []uefi.SignatureList
}

// UpdateDatabases applies the first of some signed updates that has not been applied:
// KEK before db before dbx, and one for each start. Before the firmware is told, root
// is bound to what it will measure then; and an update is refused that would leave a
// program on the boot partition without anybody who vouches for it.
//
// The updates come as a tar archive of files NAME_DIGEST.auth, such as db_4f1a….auth;
// "incusos keys rotate" makes such.
func (s *Seal) UpdateDatabases(ctx context.Context, archive []byte) error {
	secure, err := s.secureBoot()
	if err != nil {
		return err
	}
	if !secure {
		return api.Errorf(api.Invalid, "Secure Boot is off: there is nothing that would check the updates; turn it on in the firmware setup")
	}
	updates, err := readUpdates(archive)
	if err != nil {
		return err
	}
	s.turn.Lock()
	defer s.turn.Unlock()
	for _, u := range updates {
		value, err := s.secureBootVariable(u.variable)
		if err != nil {
			return err
		}
		after, err := u.applied(value)
		if err != nil {
			return err
		}
		if !bytes.Equal(after, value) {
			return s.updateDatabase(ctx, u, after)
		}
	}
	return api.Errorf(api.Conflict, "all of these updates have been applied")
}

// readUpdates returns the updates in an archive in the order in which they are to be
// applied.
func readUpdates(archive []byte) ([]databaseUpdate, error) {
	var updates []databaseUpdate
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, api.Errorf(api.Invalid, "the updates are no tar archive: %v", err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if h.Size > maxUpdate || len(updates) == maxUpdates {
			return nil, api.Errorf(api.Invalid, "%s: %d bytes in file %d; want at most %d, in %d files", h.Name, h.Size, len(updates)+1, maxUpdate, maxUpdates)
		}
		raw, err := io.ReadAll(r)
		if err != nil {
			return nil, api.Errorf(api.Invalid, "%s: %v", h.Name, err)
		}
		u, err := readUpdate(path.Base(h.Name), raw)
		if err != nil {
			return nil, api.Errorf(api.Invalid, "%s: %v", h.Name, err)
		}
		updates = append(updates, u)
	}
	if updates == nil {
		return nil, api.Errorf(api.Invalid, "the archive holds no updates; want files such as db_4f1a.auth")
	}
	order := []string{"KEK", "db", "dbx"}
	slices.SortStableFunc(updates, func(a, b databaseUpdate) int {
		return slices.Index(order, a.variable.Name) - slices.Index(order, b.variable.Name)
	})
	return updates, nil
}

func readUpdate(file string, raw []byte) (databaseUpdate, error) {
	name, _, _ := strings.Cut(strings.TrimSuffix(file, ".auth"), "_")
	if !strings.HasSuffix(file, ".auth") || name != "KEK" && name != "db" && name != "dbx" {
		return databaseUpdate{}, errors.New("its name is that of no update; want one such as db_4f1a.auth, of KEK, db or dbx")
	}
	v, err := uefi.SecureBootVariable(name)
	if err != nil {
		return databaseUpdate{}, err
	}
	parsed, err := uefi.ParseUpdate(raw)
	if err != nil {
		return databaseUpdate{}, err
	}
	payload, err := uefi.ParseSignatureLists(parsed.Payload)
	if err != nil {
		return databaseUpdate{}, err
	}
	return databaseUpdate{file, v, raw, payload}, nil
}

// secureBootVariable returns the value of a variable; none is an empty one.
func (s *Seal) secureBootVariable(v uefi.Variable) ([]byte, error) {
	value, err := sys.ReadVariable(s.host.Files, v.Name, string(v.Vendor))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return value, err
}

// applied returns what the variable holds once u has been added to value. Firmware
// leaves out what is there already (section 8.2.2).
func (u databaseUpdate) applied(value []byte) ([]byte, error) {
	have, err := uefi.ParseSignatureLists(value)
	if err != nil {
		return nil, fmt.Errorf("reading the EFI variable %s: %w", u.variable.Name, err)
	}
	added, err := uefi.EncodeSignatureLists(uefi.Missing(have, u.payload))
	return slices.Concat(value, added), err
}

// updateDatabase provides for the start after u, and then tells the firmware. The
// caller holds the turn.
func (s *Seal) updateDatabase(ctx context.Context, u databaseUpdate, after []byte) error {
	if err := s.vouchedFor(u); err != nil {
		return err
	}
	b, err := s.bound()
	if err != nil {
		return err
	}
	l, err := s.readLog()
	if err != nil {
		return err
	}
	switch {
	case l.problem != nil:
		return api.Errorf(api.Conflict, "%s: what the next start will measure cannot be told: %v", u.file, l.problem)
	case b.next != b.live:
		return api.Errorf(api.Conflict, "%s: a Secure Boot variable was changed since this start; restart the machine before the next one", u.file)
	case b.pin:
		return api.Errorf(api.Conflict, "%s: this machine asks for a PIN, which the TPM has to be told again; remove it, apply the updates, and set it again", u.file)
	case !b.has(b.live, false):
		return api.Errorf(api.Conflict, "%s: this start is not what root is bound to; bind it first, :tpm-rebind, and restart", u.file)
	}
	partition, err := s.readESP()
	if err != nil {
		return err
	}
	variables, err := s.variables(l.events)
	if err != nil {
		return err
	}
	next := withVariable(variables, u.variable.Name, after)
	if err := refusesMore(partition, variables, next); err != nil {
		return api.Errorf(api.Conflict, "%s: %v", u.file, err)
	}
	if len(partition.kernels) == 0 {
		return api.Errorf(api.Conflict, "%s: there is no kernel image on the boot partition", u.file)
	}
	p, err := uefi.PredictPCR7(l.events, partition.next(l.events, next, partition.kernels[0]))
	if err != nil {
		return err
	}
	for _, image := range s.images(partition, b) {
		if err := s.provide(ctx, b, start{pcr7: p.Value, pcr11: image}); err != nil {
			return err
		}
	}
	err = sys.UpdateVariable(s.host.Files, u.variable.Name, string(u.variable.Vendor), uint32(u.variable.Appending().Attributes), u.raw)
	if err != nil {
		return fmt.Errorf("the firmware did not take %s: %w", u.file, err)
	}
	slog.InfoContext(ctx, "A Secure Boot variable was changed; it counts from the next start on", "variable", u.variable.Name, "update", u.file)
	return s.agrees(ctx, u, b, after)
}

// vouchedFor refuses an update that the firmware would refuse, before anything is
// done for it.
func (s *Seal) vouchedFor(u databaseUpdate) error {
	by := "KEK"
	if u.variable.Name == "KEK" {
		by = "PK"
	}
	v, err := uefi.SecureBootVariable(by)
	if err != nil {
		return err
	}
	value, err := s.secureBootVariable(v)
	if err != nil {
		return err
	}
	lists, err := uefi.ParseSignatureLists(value)
	if err != nil {
		return fmt.Errorf("reading the EFI variable %s: %w", by, err)
	}
	parsed, err := uefi.ParseUpdate(u.raw)
	if err != nil {
		return err
	}
	if err := parsed.Verify(u.variable.Appending(), uefi.X509Certificates(lists)); err != nil {
		return api.Errorf(api.Invalid, "%s: it is no update that adds to %s, signed with a key in %s: %v", u.file, u.variable.Name, by, err)
	}
	return nil
}

func withVariable(variables map[string][]byte, name string, value []byte) map[string][]byte {
	next := make(map[string][]byte)
	for k, v := range variables {
		next[k] = v
	}
	next[name] = value
	return next
}

// refusesMore says which program firmware starts with the variables as they are, and
// will not with the next ones.
func refusesMore(p bootPartition, now, next map[string][]byte) error {
	programs := slices.Clone(p.kernels)
	if p.loader != nil {
		programs = append(programs, *p.loader)
	}
	for _, prog := range programs {
		if why := trusts(prog, next); why != "" && trusts(prog, now) == "" {
			return fmt.Errorf("it would keep %s from being started, which is in use: %s; update to an image signed with another key first, in both slots", prog.file, why)
		}
	}
	return nil
}

// provide binds root to a start to come, besides
// those that it is bound to.
func (s *Seal) provide(ctx context.Context, b bindings, at start) error {
	have, err := s.provided()
	if err != nil {
		return err
	}
	if !slices.Contains(have, at) {
		var lines []byte
		for _, v := range append(have, at) {
			lines = fmt.Appendf(lines, "%x%x%x%x\n", v.pcr2, v.pcr4, v.pcr7, v.pcr11)
		}
		if err := s.host.Files.WriteFile(providedFile, lines, 0o600); err != nil {
			return err
		}
	}
	if b.header, err = readHeader(s.host.Files, b.device); err != nil {
		return err
	}
	if b.pin && b.has(at, true) || b.well(at, b.pin) {
		return nil
	}
	return s.bind(ctx, b.device, at, "")
}

// images returns what the kernel images measure that root is to stay bound to when PCR 7
// changes: the running one, and others on the boot partition that it is bound to now.
func (s *Seal) images(p bootPartition, b bindings) [][sha256.Size]byte {
	all := [][sha256.Size]byte{b.live.pcr11}
	for _, k := range p.kernels {
		if b.live.pcr11 != unknown && !slices.Contains(all, k.facts.pcr11) && k.problem == nil && b.well(start{pcr7: b.live.pcr7, pcr11: k.facts.pcr11}, b.pin) {
			all = append(all, k.facts.pcr11)
		}
	}
	return all
}

// provided returns the starts that root was bound to since this one.
func (s *Seal) provided() ([]start, error) {
	text, err := s.host.Files.ReadFile(providedFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var values []start
	for _, line := range strings.Fields(string(text)) {
		b, err := hex.DecodeString(line)
		if err != nil || len(b) != 4*sha256.Size {
			return nil, fmt.Errorf("%s: %q are no values of four PCRs", providedFile, line)
		}
		value := func(i int) [sha256.Size]byte { return [sha256.Size]byte(b[i*sha256.Size:]) }
		values = append(values, start{value(0), value(1), value(2), value(3)})
	}
	return values, nil
}

// agrees reports whether the firmware has made of the variable what was expected. If it
// has not, root is bound to what it has made of it.
func (s *Seal) agrees(ctx context.Context, u databaseUpdate, b bindings, expected []byte) error {
	value, err := s.secureBootVariable(u.variable)
	if err != nil || bytes.Equal(value, expected) {
		return err
	}
	slog.WarnContext(ctx, "The firmware keeps a Secure Boot variable in a way of its own", "variable", u.variable.Name)
	l, err := s.readLog()
	if err != nil {
		return err
	}
	next, err := s.nextPCR7(l)
	if err != nil {
		return err
	}
	return s.provide(ctx, b, start{pcr7: next, pcr11: b.live.pcr11})
}

// A coming is a start of a kernel image that is not what runs.
type coming struct {
	kernel program
	at     start
	bound  bindings
}

// foresee returns what a start of a kernel image of size bytes will measure, and what
// root is bound to now. An error says why that image will not be started, or why nobody
// can tell.
func (s *Seal) foresee(image io.ReaderAt, size int64) (c coming, err error) {
	if c.bound, err = s.bound(); err != nil {
		return c, err
	}
	l, err := s.readLog()
	if err != nil {
		return c, err
	}
	if l.problem != nil {
		return c, fmt.Errorf("what a start of the image will measure cannot be told: %w", l.problem)
	}
	c.kernel = program{file: "the image"}
	if err := c.kernel.readFrom(image, size, true); err != nil {
		return c, err
	}
	partition, err := s.readESP()
	if err != nil {
		return c, err
	}
	variables, err := s.variables(l.events)
	if err != nil {
		return c, err
	}
	live := c.bound.live
	if err := s.willStart(c.kernel, variables, live.open()); err != nil {
		return c, err
	}
	p, err := uefi.PredictPCR7(l.events, partition.next(l.events, variables, c.kernel))
	if err != nil {
		return c, err
	}
	c.at = start{pcr2: live.pcr2, pcr7: p.Value, pcr11: c.kernel.facts.pcr11}
	if live.open() {
		c.at.pcr4, err = partition.pcr4(l.events, c.kernel)
	}
	return c, err
}

// Provide binds root for starts of a kernel image that will be on the boot partition,
// of size bytes, before it gets there. An error says why such a start would not unlock
// by itself.
func (s *Seal) Provide(ctx context.Context, image io.ReaderAt, size int64) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	c, err := s.foresee(image, size)
	if err != nil {
		return err
	}
	at := c.at
	if c.bound.live.pcr11 == unknown { // what it was reckoned to be does not fit this start either
		at.pcr11 = unknown
	}
	if c.bound.pin && !c.bound.has(at, true) {
		return errors.New("a start of the image measures another PCR 7, and this machine asks for a PIN: remove it before the update, and set it again afterwards")
	}
	if err := s.provide(ctx, c.bound, at); err != nil {
		return err
	}
	return s.unlocks(c)
}

// Unlocks says why a start of a kernel image on the boot partition, of size bytes, would
// not unlock root by itself. Where this start did not either, there is nothing to lose.
func (s *Seal) Unlocks(image io.ReaderAt, size int64) error {
	if s.unlockedBy() != ByTPM {
		return nil
	}
	s.turn.Lock()
	defer s.turn.Unlock()
	c, err := s.foresee(image, size)
	if err != nil {
		return err
	}
	return s.unlocks(c)
}

// willStart says why a kernel image would not be started: by firmware with Secure Boot,
// or else by the early boot, which looks at what was.
func (s *Seal) willStart(kernel program, variables map[string][]byte, open bool) error {
	if open {
		certificates, err := imageCertificates(s.host.Files, certificateDir)
		if err != nil {
			return err
		}
		if why := unsigned(kernel, certificates); why != "" {
			return fmt.Errorf("the system will not start with the image: %s", why)
		}
		return nil
	}
	if why := trusts(kernel, variables); why != "" {
		return fmt.Errorf("the firmware will not start the image: %s", why)
	}
	return nil
}

// unlocks says why root would not be unlocked by such a start.
func (s *Seal) unlocks(c coming) error {
	h, err := readHeader(s.host.Files, c.bound.device)
	if err != nil {
		return err
	}
	f, why := c.kernel.facts, noToken
	f.start = c.at
	for _, t := range h.TPM2Tokens() {
		if why = refusal(t.TPM2, f); why == "" {
			return nil
		}
	}
	return fmt.Errorf("a start of the image would not unlock root: %s", why)
}
