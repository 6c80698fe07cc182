package repo

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
)

// A Machine is what the choice of a release depends on.
type Machine struct {
	ID           string   // anything that is its own and stays, such as machine-id
	Architecture string   // "x86_64" or "aarch64"
	Channel      string   // the one its operator chose
	Running      string   // version of the running image
	Blessed      string   // highest version that was ever found good on it; "" if none
	Failed       []string // versions that were tried and went wrong
}

// A Choice is what a machine may take, and else why not.
type Choice struct {
	Release *Release // nil: stay with what is running
	Why     string   // a sentence for the operator
}

// Choose returns the newest release that a machine may take.
//
// Nothing older than what runs, or than what was ever found good, is taken, nor
// what is older than the floor of the repository: somebody who could hold back
// updates could otherwise bring back a hole that was mended.
func (c *Catalog) Choose(m Machine) Choice {
	least := max(m.Running, m.Blessed, c.Floor)
	newest := fmt.Sprintf("Version %s is the newest in channel %q", m.Running, m.Channel)
	why := "" // the newest is passed by
	found := false
	for i := range c.Releases {
		r := &c.Releases[i]
		phase, in := r.Channels[m.Channel]
		if !in || len(systemFiles(r.For(m.Architecture))) == 0 {
			continue
		}
		found = true
		switch {
		case r.Version <= m.Running || r.Version < least:
			return Choice{Why: cmp.Or(why, newest)}
		case r.Withdrawn != "":
			why = cmp.Or(why, fmt.Sprintf("Version %s was withdrawn: %s", r.Version, r.Withdrawn))
		case slices.Contains(m.Failed, r.Version):
			why = cmp.Or(why, fmt.Sprintf("Version %s was tried and did not work; it is tried again when asked for", r.Version))
		case !Reached(m.ID, r.Version, phase.Percent):
			why = cmp.Or(why, fmt.Sprintf("Version %s is being rolled out and has reached %d percent of machines", r.Version, phase.Percent))
		default:
			return Choice{r, fmt.Sprintf("Version %s can be installed", r.Version)}
		}
	}
	if !found {
		why = fmt.Sprintf("The repository has nothing for %s in channel %q", m.Architecture, m.Channel)
	}
	return Choice{Why: cmp.Or(why, newest)}
}

// Applications returns the releases whose applications a machine may take for the
// version of the system that it runs, the newest first: that of this version, and
// those that came without a system before the next one did. Applications of a later
// system were not made for this one.
func (c *Catalog) Applications(m Machine) []Release {
	var found []Release
	for _, r := range slices.Backward(c.Releases) {
		phase, in := r.Channels[m.Channel]
		if r.Version < max(m.Running, c.Floor) || !in || r.Withdrawn != "" {
			continue
		}
		if r.Version > m.Running && len(systemFiles(r.For(m.Architecture))) > 0 {
			break
		}
		if Reached(m.ID, r.Version, phase.Percent) {
			found = append(found, r)
		}
	}
	slices.Reverse(found)
	return found
}

// systemFiles returns the file systems of slots among files.
func systemFiles(files []File) []File {
	return slices.DeleteFunc(files, func(f File) bool { return f.Kind != KindUsr })
}

// Reached reports whether a roll-out that has got to so many percent includes a
// machine. A machine that is included once stays so when the percentage grows; with
// another version it is another machine's turn to be among the first.
func Reached(machine, version string, percent int) bool {
	sum := sha256.Sum256([]byte(version + "\n" + machine))
	return binary.BigEndian.Uint64(sum[:])%10000 < uint64(max(0, percent))*100
}
