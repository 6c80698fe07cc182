package debian

import "strings"

// Refused is what this release does not do yet, on any machine. Whoever makes one of
// these work takes it away here, and says in test/client what it prints.
func Refused() []Step {
	var steps []Step
	for line := range strings.Lines(refused) {
		words := strings.Fields(line)
		last := len(words) - 1
		s := Step{Do: strings.Join(words[:last], " "), Err: words[last] + ": this release has nothing of the kind"}
		if strings.HasSuffix(s.Do, "edit") {
			s.In = "config: {}"
		}
		steps = append(steps, s)
	}
	return append(
		steps,
		Step{Do: "system storage encrypt-drive --force", Err: emptyBody},
		Step{Do: "system storage wipe-drive --force", Err: emptyBody},
		Step{Do: "system storage import-encrypted-drive", Err: emptyBody},
		Step{Do: "application action incus", Err: `application "incus" has no action "", nor any other`},
		Step{Do: "system network confirm", Err: "no change is waiting to be confirmed"},
		Step{Do: "system security edit", In: "config: {encryption_recovery_keys: [one]}", Err: "config.encryption_recovery_keys[0]: has 3 characters; want 15 to 256"},
		Step{Do: "system storage edit", In: "config: {}", Err: "storage" + ByTheSeed},
	)
}

// ByTheSeed is the end of what is said about documents that cannot be changed.
const ByTheSeed = " cannot be changed over the API in this release; the seed sets it once, at install"

// emptyBody is what is said where Debian's client was given no --data.
const emptyBody = "body: is empty; want a document in JSON"

// refused are commands, and the routes that answer that there is nothing.
const refused = `system storage cleanup-root             /1.0/system/storage/:cleanup-root
system storage create-volume            /1.0/system/storage/:create-volume
system storage delete --force           /1.0/system/storage/:delete-pool
system storage delete-volume --force    /1.0/system/storage/:delete-volume
system storage import-storage-pool      /1.0/system/storage/:import-pool
system storage rescan-scsi              /1.0/system/storage/:rescan-scsi
system storage scrub-pool               /1.0/system/storage/:scrub-pool
system storage trim-pool                /1.0/system/storage/:trim-pool
`
