package main

import (
	"fmt"
	"strings"
)

const seedHead = `# Seed

A seed is what a machine is told before it has an API. It is a directory with
one file for each section, named after it: ` + "`install.yaml`, `network.json`" + ` and
so on. YAML and JSON mean the same. [Write a seed](../how-to/write-a-seed.md)
says how to use one, [the examples](../examples/) are seeds to start from.

Files are read strictly: an unknown field, a value of the wrong type, a field set
twice, an anchor, an alias or a tag is an error that names the file, the line and
the column. An empty file is a section with nothing set. A file holds 1 MiB at
most.

` + "`version` may be given in every section and is not looked at yet; write `\"1\"`." + `

The sections migration-manager, operations-center and security may be there. They are carried along, and this release does
not apply them: the console says so.

`

// sections are the seed's by name, with what the types cannot say.
var sections = []struct{ name, typ, note string }{
	{"install", "SeedInstall", "Only the install medium reads this section; it is not copied to the disk. The field `security`\nis compared with the machine: what it lacks must be in it, and what is in it must lack.\n\nA size is a whole number with a unit: B, kB, MB, GB, TB, KiB, MiB, GiB or TiB; without a unit it is bytes."},
	{"applications", "SeedApplications", "Without this section Incus is installed. Their extension images come from the install medium."},
	{"incus", "SeedIncus", "Without this section `apply_defaults` is on. Of Incus' own document, `config`, `projects`, `storage_pools`,\n`networks`, `profiles` and `certificates` are applied; any other key is an error. Certificates are PEM."},
	{"network", "SeedNetwork", "Without this section, and without `interfaces`, every network card asks for addresses by DHCP and listens\nto router advertisements."},
	{"kernel", "SeedKernel", "Without this section the kernel is left as it is. [Tune the kernel](../how-to/tune-the-kernel.md) says more."},
	{"logging", "SeedLogging", "Without this section the log stays on the machine. [Keep and send the log](../how-to/keep-and-send-the-log.md)\nsays more."},
	{"security", "SeedSecurity", "Without this section the machine trusts the certificate authorities of its image, and shows no key. Recovery keys\nare not taken from a seed, which lies in the clear. [Unlock with the recovery key](../how-to/unlock-with-the-recovery-key.md)\nsays more."},
	{"update", "SeedUpdate", "Without this section the machine looks in the channel stable every six hours, and waits for somebody to restart\nit. [Update a machine](../how-to/update-a-machine.md) says more."},
	{"provider", "SeedProvider", "Without this section the machine knows no repository and does not update itself."},
	{"services", "SeedServices", "Each service takes its part once, if nobody has configured it before. [Services](../how-to/services.md) says what\nthey do."},
}

func seedPage(docs *types) (string, error) {
	var b strings.Builder
	b.WriteString(made + seedHead)
	for _, s := range sections {
		doc := docs.byName[s.typ]
		if doc == nil {
			return "", fmt.Errorf("section %s: package api has no type %s", s.name, s.typ)
		}
		fmt.Fprintf(&b, "## %s\n\n%s\n\n", s.name, s.note)
		docs.section(&b, doc, "", make(map[*typeDoc]string))
	}
	return strings.TrimRight(b.String(), "\n") + "\n", nil
}
