package script_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// send makes `send PATH FILE`: it posts the content of a file, "-" for none, and
// prints status and body.
func send(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: send PATH FILE")
	}
	status, body := post(ts, args[0], args[1])
	_, err := fmt.Fprintf(ts.Stdout(), "%s\n%s", status, body)
	ts.Check(err)
}

// fetch makes `fetch PATH FILE`: it posts nothing and keeps the body of the
// answer in a file.
func fetch(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: fetch PATH FILE")
	}
	status, body := post(ts, args[0], "-")
	if !strings.HasPrefix(status, "200 ") {
		ts.Fatalf("%s: %s\n%s", args[0], status, body)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), body, 0o600))
}

func post(ts *testscript.TestScript, path, file string) (status string, body []byte) {
	content := ""
	if file != "-" {
		content = ts.ReadFile(file)
	}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://incus-os"+path, strings.NewReader(content))
	ts.Check(err)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", ts.Getenv("OS_SOCKET"))
	}
	c := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: patience}
	resp, err := c.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	ts.Check(err)
	return resp.Status, body
}
