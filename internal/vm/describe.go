package vm

import (
	"fmt"
	"io"
)

// Describe prints how to reach the machine, as commands to paste.
func (s *Site) Describe(w io.Writer) {
	fmt.Fprintf(w, `
IncusOS is up. Incus answers at %[1]s

  certificate  %[2]s
  key          %[3]s

With the incus command, the second line once only:

  export INCUS_CONF=%[4]s
  incus remote add run %[1]s --accept-certificate
  incus list run:

With curl:

  curl -k --cert %[2]s --key %[3]s %[1]s/os/1.0

Ctrl-C switches the machine off.
`, s.URL, s.Identity.Certificate(), s.Identity.Key(), s.Identity.Dir)
}
