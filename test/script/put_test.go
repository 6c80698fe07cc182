package script_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"regexp"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// put sends a file as a document; it succeeds whatever the answer is.
func put(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: put PATH FILE")
	}
	body := bytes.NewReader([]byte(ts.ReadFile(args[1])))
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPut, "http://incus-os"+args[0], body)
	ts.Check(err)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", ts.Getenv("OS_SOCKET"))
	}
	c := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: patience}
	resp, err := c.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	var out bytes.Buffer
	fmt.Fprintln(&out, resp.Status)
	_, err = out.ReadFrom(resp.Body)
	ts.Check(err)
	_, err = ts.Stdout().Write(out.Bytes())
	ts.Check(err)
}

// waitGone waits until a file is not there any more.
func waitGone(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: wait-gone FILE")
	}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(ts.MkAbs(args[0])); err != nil {
			return
		}
	}
	ts.Fatalf("%s is still there", args[0])
}

// waitMatch waits until the content of a file matches: what writes to a terminal
// does not wait for it.
func waitMatch(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: wait-match REGEXP FILE")
	}
	want, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	var content []byte
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if content, err = os.ReadFile(ts.MkAbs(args[1])); err == nil && want.Match(content) {
			return
		}
	}
	ts.Fatalf("no match for %s in %s, %v:\n%s", args[0], args[1], err, content)
}
