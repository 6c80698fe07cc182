package seal

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/luks"
	"github.com/incusos/incusos/internal/uefi"
)

// lastGood is the event log of PCR 7 of the last start at which the TPM unlocked
// root: what a start that it did not unlock is compared with.
const lastGood = keyDir + "/measured.log"

// An examination is all that the doctor looks at.
type examination struct {
	secure    bool
	tpm       bool
	by        string // how root was unlocked
	lacks     Lack   // by the owner's wish
	rebound   bool   // root was bound anew since then
	log       bootLog
	variables map[string][]byte
	boot      bootPartition
	bootErr   error // why it cannot be looked into
	header    luks.Header
	headerErr error
	now       facts // of this start, in its initrd
	was       []uefi.Event
}

// Doctor says whether the next start will unlock root by itself, and if not, what is
// to be done. It changes nothing.
func (s *Seal) Doctor(context.Context) (api.SecureBootDoctor, error) {
	x, err := s.examine()
	if err != nil {
		return api.SecureBootDoctor{}, err
	}
	certificates, err := s.certificates()
	if err != nil {
		return api.SecureBootDoctor{}, err
	}
	d := api.SecureBootDoctor{SecureBoot: x.secure, Findings: []api.DoctorFinding{}, Certificates: x.certificates(certificates)}
	d.Kernels = x.kernels()
	d.Bindings = x.bindings()
	d.PCRs, d.Events = x.measured()
	d.Unlocks = len(d.Kernels) > 0 && d.Kernels[0].Unlocks
	x.judge(&d)
	return d, nil
}

func (s *Seal) examine() (x examination, err error) {
	if x.secure, err = s.secureBoot(); err != nil {
		return x, err
	}
	x.tpm, x.by, x.rebound = s.hasTPM(), s.unlockedBy(), s.host.Files.Exists(reboundFile)
	x.lacks = s.early().Lacks
	if x.log, err = s.readLog(); err != nil {
		return x, err
	}
	if x.variables, err = s.variables(x.log.events); err != nil {
		return x, err
	}
	x.boot, x.bootErr = s.readESP()
	_, x.header, x.headerErr = s.root()
	x.now = measuredHere(s.host.Files)
	if running := x.boot.running(x.log.events); running != nil {
		x.now.pcr11 = running.facts.pcr11 // the register has gone on since the initrd
		x.now.policies = running.facts.policies
	}
	raw, err := readAtMost(s.host.Files, lastGood, maxLog)
	if errors.Is(err, fs.ErrNotExist) {
		return x, nil
	}
	if err != nil {
		return x, err
	}
	x.was, _ = uefi.ParseEventLog(raw) // what can be read of it helps
	return x, nil
}

func (x examination) certificates(all []api.SecureBootCertificate) []api.DoctorCertificate {
	out := []api.DoctorCertificate{}
	for _, c := range all {
		ours := false
		for _, own := range x.boot.ours[c.Type] {
			ours = ours || uefi.Fingerprint(own.Raw) == c.Fingerprint
		}
		out = append(out, api.DoctorCertificate{Type: c.Type, Fingerprint: c.Fingerprint, Subject: c.Subject, Ours: ours})
	}
	return out
}

// next returns the facts of the next start if it is one of kernel.
func (x examination) next(kernel program) (facts, error) {
	f := kernel.facts
	if x.log.problem != nil {
		return f, x.log.problem
	}
	p, err := uefi.PredictPCR7(x.log.events, x.boot.next(x.log.events, x.variables, kernel))
	f.pcr7 = p.Value
	if err == nil && x.now.open() {
		f.pcr2 = x.now.pcr2
		f.pcr4, err = x.boot.pcr4(x.log.events, kernel)
	}
	return f, err
}

func (x examination) kernels() []api.DoctorKernel {
	out := []api.DoctorKernel{}
	running := x.boot.running(x.log.events)
	for i, k := range x.boot.kernels {
		d := api.DoctorKernel{File: k.file, Version: k.version, Running: running == &x.boot.kernels[i]}
		if k.signer != nil {
			d.Signer = k.signer.Subject.String()
		}
		if k.problem == nil {
			d.PCR11 = hex.EncodeToString(k.facts.pcr11[:])
		}
		d.Starts, d.Unlocks, d.Why = x.starts(k, &d)
		out = append(out, d)
	}
	return out
}

// starts says how far a start of kernel will come, and notes its prediction in d.
func (x examination) starts(kernel program, d *api.DoctorKernel) (starts, unlocks bool, why string) {
	if x.secure {
		if why := trusts(kernel, x.variables); why != "" {
			return false, false, "the firmware will not start it: " + why
		}
	}
	f, err := x.next(kernel)
	if err != nil {
		return true, false, "it cannot be told: " + err.Error()
	}
	d.PCR7, d.PCR4 = hex.EncodeToString(f.pcr7[:]), digestText(f.pcr4)
	why = x.unlocks(f)
	return true, why == "", why
}

// unlocks says why the TPM will not open root at a start of which f is true.
func (x examination) unlocks(f facts) string {
	tokens := x.header.TPM2Tokens()
	switch {
	case x.headerErr != nil:
		return x.headerErr.Error()
	case !x.tpm:
		return "there is no TPM 2.0"
	case len(tokens) == 0:
		return "root is not bound to a TPM"
	case x.by == ByRecoveryKey && !x.rebound && slices.ContainsFunc(tokens, func(t luks.Token) bool { return refusal(t.TPM2, x.now) == "" }):
		return "the TPM kept the key back at this start although everything measured is right: root is bound to another TPM, or the TPM was cleared"
	}
	why := ""
	for _, t := range tokens {
		r := x.refusal(t.TPM2, f)
		if r == "" {
			return ""
		}
		if why == "" || r == whyOlder {
			why = r
		}
	}
	return why
}

// refusal is the function of the same name, and tells apart what that cannot: which of
// two registers is another.
func (x examination) refusal(b luks.TPM2, f facts) string {
	r := refusal(b, f)
	if r != f.either() {
		return r
	}
	if boundTo(b, x.now.of(f.start)) {
		return whyPCR7
	}
	for _, k := range append([]start{x.now.start}, x.images()...) {
		switch {
		case boundTo(b, f.of(k)):
			return whyOlder
		case boundTo(b, x.now.of(k)):
			return whyPCR7
		}
	}
	return r
}

// images are the kernel images on the boot partition, by what they measure.
func (x examination) images() []start {
	var all []start
	for _, k := range x.boot.kernels {
		image := start{pcr11: k.facts.pcr11}
		if x.now.open() && x.log.problem == nil {
			image.pcr4, _ = x.boot.pcr4(x.log.events, k) // else it is none that root can be bound to
		}
		all = append(all, image)
	}
	return all
}

func (x examination) bindings() []api.DoctorBinding {
	out := []api.DoctorBinding{}
	for _, t := range x.header.TPM2Tokens() {
		b := api.DoctorBinding{PIN: t.TPM2.PIN, Image: len(t.TPM2.PublicKey) == 0, Now: x.refusal(t.TPM2, x.now), Next: "there is no kernel image to be started"}
		if len(t.Slots) > 0 {
			b.Slot = t.Slots[0]
		}
		if len(x.boot.kernels) > 0 {
			if f, err := x.next(x.boot.kernels[0]); err != nil {
				b.Next = "it cannot be told: " + err.Error()
			} else {
				b.Next = x.refusal(t.TPM2, f)
			}
		}
		out = append(out, b)
	}
	return out
}

// measured lists registers and events: of this start, and of the next if it is one
// of the kernel image that comes first.
func (x examination) measured() ([]api.DoctorPCR, []api.DoctorEvent) {
	registers, events := []api.DoctorPCR{}, []api.DoctorEvent{}
	if x.log.live == nil {
		return registers, events
	}
	next := uefi.NextBoot{Variables: x.variables}
	if len(x.boot.kernels) > 0 {
		next = x.boot.next(x.log.events, x.variables, x.boot.kernels[0])
	}
	for _, p := range []struct {
		pcr     int
		predict func([]uefi.Event, uefi.NextBoot) (uefi.Prediction, error)
	}{{4, uefi.PredictPCR4}, {7, uefi.PredictPCR7}} {
		live, replayed := x.log.live[p.pcr], uefi.ReplayPCR(x.log.events, p.pcr)
		r := api.DoctorPCR{PCR: p.pcr, Measured: hex.EncodeToString(live[:]), Replayed: hex.EncodeToString(replayed[:])}
		prediction, err := p.predict(x.log.events, next)
		if err == nil && x.log.problem == nil {
			r.Expected = hex.EncodeToString(prediction.Value[:])
		}
		registers = append(registers, r)
		events = append(events, x.events(p.pcr, prediction)...)
	}
	return registers, events
}

// events lists the events of a PCR; without a prediction those of the log alone.
func (x examination) events(pcr int, p uefi.Prediction) []api.DoctorEvent {
	if p.Events == nil {
		for _, e := range x.log.events {
			if e.PCR == pcr && e.Type != uefi.EventNoAction {
				p.Events = append(p.Events, uefi.Expected{Event: e, Expected: e.Digest})
			}
		}
	}
	before := digests(x.was)
	out := []api.DoctorEvent{}
	for _, e := range p.Events {
		d := api.DoctorEvent{PCR: pcr, Type: e.Type.String(), About: e.Describe(), Expected: digestText(e.Expected)}
		if !e.New {
			d.Measured = digestText(e.Digest)
			if was, ok := before[d.Type+d.About]; ok && pcr == 7 && was != e.Digest {
				d.LastGood = digestText(was)
			}
		}
		out = append(out, d)
	}
	return out
}

// digests are those of events, by type and what they are about.
func digests(events []uefi.Event) map[string][sha256.Size]byte {
	out := make(map[string][sha256.Size]byte)
	for _, e := range events {
		out[e.Type.String()+e.Describe()] = e.Digest
	}
	return out
}

func digestText(d [sha256.Size]byte) string {
	if d == [sha256.Size]byte{} {
		return ""
	}
	return hex.EncodeToString(d[:])
}

// judge adds what is not as it should be, and the sentence that sums it up.
func (x examination) judge(d *api.SecureBootDoctor) {
	find := func(serious bool, what, do string) {
		d.Findings = append(d.Findings, api.DoctorFinding{Serious: serious, What: what, Do: do})
	}
	switch {
	case d.Unlocks:
		d.Verdict = "The next start unlocks root by itself"
		if slices.ContainsFunc(d.Bindings, func(b api.DoctorBinding) bool { return b.PIN && b.Next == "" }) {
			d.Verdict = "The next start unlocks root once the PIN is typed"
		}
		d.Verdict += ", with " + d.Kernels[0].File + "."
	case len(d.Kernels) > 0:
		d.Verdict = "The next start needs a recovery key, or does not come about: " + d.Kernels[0].Why + "."
		find(true, d.Kernels[0].Why, x.cure(d.Kernels[0]))
	default:
		d.Verdict = "It cannot be told whether the next start unlocks root: no kernel image was found."
	}
	switch {
	case !x.secure && x.lacks == NoSecureBoot:
		find(false, "Secure Boot is off, as the machine was installed: the firmware starts anything, and root is bound to what it measures of that", "Have a recovery key at hand before a card or a firmware is changed. Turning Secure Boot on needs it once as well.")
	case !x.secure:
		find(false, "Secure Boot is off: the firmware starts anything, and the TPM cannot tell our images from others", "Turn it on in the firmware setup.")
	}
	if x.lacks == NoTPM {
		find(false, "the TPM is one in software, as the machine was installed: whoever has the disk, or a copy of it, has its key, and what was measured is what this system says of itself", "Keep others from the disk. With a TPM 2.0 in the machine, install again or reset it to factory settings.")
	}
	if !x.tpm {
		find(true, "there is no TPM 2.0", "Turn it on in the firmware setup.")
	}
	if x.bootErr != nil {
		find(true, x.bootErr.Error(), "Start from the disk's own boot entry; if that is what you did, install again or restore a backup.")
	}
	if x.log.problem != nil {
		find(false, x.log.problem.Error(), "Nothing can be predicted then: after changes of the firmware's settings have a recovery key at hand. A newer firmware may help.")
	}
	if x.by == ByRecoveryKey && !x.rebound {
		find(true, "this start was unlocked with a recovery key", "When the machine is as it should be, bind it anew: incusos os system security tpm-rebind.")
	}
	for _, e := range d.Events {
		if e.LastGood != "" && x.by == ByRecoveryKey {
			find(false, "changed since the last start that unlocked by itself: "+e.About, "If nobody meant to change it, put it back in the firmware setup.")
		}
	}
	for _, k := range d.Kernels[min(1, len(d.Kernels)):] {
		if !k.Unlocks {
			find(false, "the other slot, "+k.File+", would not unlock root by itself: "+k.Why, "Nothing, unless the first one fails: then have a recovery key at hand.")
		}
	}
	x.compareCertificates(find)
	slices.SortStableFunc(d.Findings, func(a, b api.DoctorFinding) int {
		switch {
		case a.Serious == b.Serious:
			return 0
		case a.Serious:
			return -1
		}
		return 1
	})
}

// cure says what to do about the kernel image that comes first.
func (x examination) cure(k api.DoctorKernel) string {
	switch {
	case !k.Starts:
		return "Update to an image that is signed with a key in db, or add the certificate to db, before the machine is restarted."
	case k.PCR7 == "":
		return "Have a recovery key at hand when the machine is restarted."
	}
	return "Bind root to the TPM anew before the machine is restarted: incusos os system security tpm-rebind."
}

// compareCertificates finds what is enrolled and not ours, and the reverse.
func (x examination) compareCertificates(find func(bool, string, string)) {
	for _, name := range []string{"PK", "KEK", "db"} {
		lists, err := uefi.ParseSignatureLists(x.variables[name])
		if err != nil {
			find(true, fmt.Sprintf("%s is damaged: %v", name, err), "Enrol the keys anew in the firmware setup.")
			continue
		}
		enrolled := uefi.X509Certificates(lists)
		for _, c := range x.boot.ours[name] {
			if x.secure && !slices.ContainsFunc(enrolled, c.Equal) {
				find(false, fmt.Sprintf("%s lacks the certificate %q that the image was built with", name, c.Subject), "Enrol loader/keys/auto of the boot partition, or apply the updates of your trust root.")
			}
		}
	}
}
