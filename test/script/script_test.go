// Package script_test runs the programs the way people do, on pretend machines
// in a directory: no root, no network. Each testdata/*.txtar is one story.
//
// Besides the commands of testscript there are
//
//	ready                      wait until the daemon at $OS_SOCKET has brought everything up
//	ask METHOD PATH [HEADER]   send it a request; print status, Allow, Content-Type and body
//	put PATH FILE              send it a document; print status and body
//	wait-gone FILE             wait until a file is not there any more
//	wait-match REGEXP FILE     wait until the content of a file matches
//	send PATH FILE             post a file, "-" for none; print status and body
//	fetch PATH FILE            post nothing, and keep the body in a file
//
// PATH of ask may be a whole URL, of what is not on the socket. $METRICS is a TCP address
// that nobody uses.
package script_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/incusos/incusos/client"
)

// patience is how long a daemon may take to become ready.
const patience = 30 * time.Second

func TestScripts(t *testing.T) {
	lookAtSources(t)
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-race", "-o", bin, "../../cmd/...")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the programs: %v\n%s", err, out)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+string(filepath.ListSeparator)+e.Getenv("PATH"))
			e.Setenv("OS_SOCKET", filepath.Join(e.WorkDir, "s"))
			free, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			e.Setenv("METRICS", free.Addr().String())
			return free.Close()
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"ready": ready, "ask": ask, "send": send, "fetch": fetch, "put": put, "wait-gone": waitGone, "wait-match": waitMatch},
	})
}

// lookAtSources has go test notice when what the programs are made of changes: it
// does not know that they are built here, and would take an old result for the
// new programs'.
func lookAtSources(t *testing.T) {
	t.Helper()
	for _, dir := range []string{"../../api", "../../client", "../../cmd", "../../internal"} {
		if err := filepath.WalkDir(dir, func(_ string, _ fs.DirEntry, err error) error { return err }); err != nil {
			t.Fatal(err)
		}
	}
}

// ready waits until the daemon says it is.
func ready(ts *testscript.TestScript, _ bool, _ []string) {
	c := client.New(ts.Getenv("OS_SOCKET"))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		server, err := c.Server(ctx)
		if err == nil && server.Environment.SystemIsReady {
			return
		}
		select {
		case <-ctx.Done():
			ts.Fatalf("the daemon is not ready: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// ask sends a request. Like curl, it succeeds whatever the answer is.
func ask(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: ask METHOD PATH [HEADER]")
	}
	url, socket := "http://incus-os"+args[1], true
	if strings.HasPrefix(args[1], "http://") {
		url, socket = args[1], false
	}
	req, err := http.NewRequestWithContext(context.Background(), args[0], url, nil)
	ts.Check(err)
	if len(args) == 3 {
		name, value, _ := strings.Cut(args[2], ": ")
		req.Header.Set(name, value)
	}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		if socket {
			network, address = "unix", ts.Getenv("OS_SOCKET")
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	c := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: patience}
	resp, err := c.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s\n", resp.Status)
	for _, h := range []string{"Allow", "Content-Type"} {
		if v := resp.Header.Get(h); v != "" {
			fmt.Fprintf(&out, "%s: %s\n", h, v)
		}
	}
	_, err = io.Copy(&out, resp.Body)
	ts.Check(err)
	_, err = ts.Stdout().Write(out.Bytes())
	ts.Check(err)
}
