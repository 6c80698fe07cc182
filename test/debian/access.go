package debian

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Command runs a command of incus that has to end well.
func (c Client) Command(ctx context.Context, args ...string) (stdout string, err error) {
	r, err := c.Run(ctx, strings.NewReader(""), args...)
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("incus %s: %s", strings.Join(args, " "), strings.TrimSpace(r.Err))
	}
	return r.Out, err
}

// Join makes the server at an address, which trusts the certificate in c's
// directory, the one that c speaks to.
func (c Client) Join(ctx context.Context, address string) error {
	if _, err := c.Command(ctx, "remote", "add", "os", address, "--accept-certificate"); err != nil {
		return err
	}
	_, err := c.Command(ctx, "remote", "switch", "os")
	return err
}

// As returns the client of somebody else: it knows the servers that c does, and has
// the certificate that is in conf.
func (c Client) As(conf string) (Client, error) {
	other := c
	other.Conf = conf
	err := os.CopyFS(filepath.Join(conf, "servercerts"), os.DirFS(filepath.Join(c.Conf, "servercerts")))
	remotes, readErr := os.ReadFile(filepath.Join(c.Conf, "config.yml"))
	return other, errors.Join(err, readErr, os.WriteFile(filepath.Join(conf, "config.yml"), remotes, 0o600))
}

// TrustRestricted has c's server trust a certificate, in one project alone.
func (c Client) TrustRestricted(ctx context.Context, certificate string) error {
	_, err := c.Command(ctx, "config", "trust", "add-certificate", certificate, "--restricted", "--projects", "default")
	return err
}

// attempts are what nobody may do whom the server does not trust with everything:
// looking, reading secrets, changing and stopping.
func attempts() []Step {
	return []Step{
		{Do: "show"},
		{Do: "system security show"},
		{Do: "system backup stolen.tar.gz"},
		{Do: "system kernel edit", In: "config: {}"},
		{Do: "service edit usbip", In: "config: {}"},
		{Do: "application restart incus --force"},
		{Do: "system reboot --force"},
	}
}

// What a server says to those whom it trusts with a project, and to those whom it
// does not know.
const (
	SaysRestricted = "Certificate is restricted"
	SaysUnknown    = "not authorized"
)

// TryAll makes the attempts, and reports each that does not end with what says.
func (c Client) TryAll(ctx context.Context, says string) error {
	var all error
	for _, s := range attempts() {
		s.Err = says
		all = errors.Join(all, s.Run(ctx, c))
		_ = os.Remove(filepath.Join(c.Dir, "stolen.tar.gz")) // empty: the client makes it before it asks
	}
	return all
}
