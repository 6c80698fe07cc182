package sys

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// longestSocket is how long the name of a socket may be, bytes (unix(7)).
const longestSocket = 107

// DialUnix connects to the socket name, however deep the tree lies.
func (d Dir) DialUnix(ctx context.Context, name string) (net.Conn, error) {
	p := d.Path(name)
	if len(p) > longestSocket {
		dir, err := os.OpenFile(filepath.Dir(p), unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		p = fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(p))
	}
	return (&net.Dialer{}).DialContext(ctx, "unix", p)
}
