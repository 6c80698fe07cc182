//go:build vm

package client_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/incusos/incusos/test/debian"
)

// onSocket asks as root of the machine does, without any certificate.
func onSocket(t *testing.T, m *machine) {
	for _, s := range []debian.Step{
		{Do: "show", Out: `^  os_name: IncusOS$`},
		{Do: "system kernel edit", In: "config: {}"},
		{Do: "system storage info --debug", Out: `│ /dev/disk/by-id/virtio-pretend0 │`},
	} {
		if err := s.Run(t.Context(), m.person(m.path("local"))); err != nil {
			t.Error(err)
		}
	}
}

// notTrusted asks as somebody whom Incus trusts with one project alone, and as
// somebody whom it does not know.
func notTrusted(t *testing.T, m *machine, operator debian.Client) {
	restricted, err := operator.As(m.identity(t, "restricted").Dir)
	must(t, err)
	must(t, operator.TrustRestricted(t.Context(), restricted.Conf+"/client.crt"))
	unknown, err := operator.As(m.identity(t, "unknown").Dir)
	must(t, err)
	before := audit(t, operator)
	if err := errors.Join(restricted.TryAll(t.Context(), debian.SaysRestricted), unknown.TryAll(t.Context(), debian.SaysUnknown)); err != nil {
		t.Error(err)
	}
	if after := audit(t, operator); after != before {
		t.Errorf("something of this came to the machine; its log was:\n%sand is:\n%s", before, after)
	}
}

// audit is the machine's log of changes, and of who read secrets.
func audit(t *testing.T, c debian.Client) string {
	t.Helper()
	log, err := c.Command(t.Context(), "query", "/os/1.0/audit")
	must(t, err)
	if !strings.Contains(log, "/1.0/system/kernel") {
		t.Fatalf("the log of changes says nothing of the kernel: %s", log)
	}
	return log
}

// answeredNo expects that nothing happens.
func answeredNo(t *testing.T, c debian.Client) {
	before := audit(t, c)
	for _, do := range []string{
		"application factory-reset incus", "application restart incus", "application switch-version incus", "service reset iscsi",
		"system factory-reset", "system poweroff", "system reboot", "system suspend", "system storage wipe-drive",
	} {
		s := debian.Step{Do: do, In: "no\n", Out: `\(yes/no\) \[default=no\]`}
		if err := s.Run(t.Context(), c); err != nil {
			t.Error(err)
		}
	}
	if after := audit(t, c); after != before {
		t.Errorf("something was done; the log was:\n%sand is:\n%s", before, after)
	}
}

// edited changes a document as a person at a terminal does: the client fetches
// it, starts an editor and sends all of it back.
func edited(t *testing.T, c debian.Client) {
	const one, other = "tcp_congestion_algorithm: bbr", "tcp_congestion_algorithm: cubic"
	set := debian.Step{Do: "system kernel edit", In: "config: {network: {" + one + "}}"}
	must(t, set.Run(t.Context(), c))
	c.Env = []string{"EDITOR=sed -i s/bbr/cubic/"}
	r, err := c.Run(t.Context(), terminal(t), set.Args()...)
	must(t, err)
	shown := debian.Step{Do: "system kernel show", Out: other}
	if err := shown.Run(t.Context(), c); err != nil || r.Code != 0 {
		t.Errorf("the editor was left and the command ended with %d: %s%s\n%v", r.Code, r.Out, r.Err, err)
	}
}

// terminal returns one where nobody types anything.
func terminal(t *testing.T) *os.File {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { person.Close() })
	number, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	must(t, errors.Join(err, unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0)))
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { tty.Close() })
	return tty
}
