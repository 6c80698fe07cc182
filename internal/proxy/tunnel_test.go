package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// ends returns a tunnel between two pipes, its outer ends, and when it ended.
func ends(ctx context.Context) (a, b net.Conn, ended chan struct{}) {
	a, inner := net.Pipe()
	other, b := net.Pipe()
	ended = make(chan struct{})
	go func() {
		join(ctx, inner, other, time.Hour)
		close(ended)
	}()
	return a, b, ended
}

func TestASilentTunnelEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		a, b, ended := ends(t.Context())
		go func() { _, _ = io.Copy(io.Discard, b) }()
		time.Sleep(50 * time.Minute)
		if _, err := io.WriteString(a, "still there"); err != nil {
			t.Fatal(err)
		}
		<-ended
		if took := time.Since(began); took != 110*time.Minute {
			t.Errorf("the tunnel ended after %v, want an hour after the last byte", took)
		}
		if _, err := a.Write([]byte("x")); err == nil {
			t.Error("the client can still write")
		}
	})
}

func TestATunnelEndsWithTheDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		a, _, ended := ends(ctx)
		cancel()
		<-ended
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the client reads %v", err)
		}
	})
}

// A client that has said all may still be told something.
func TestATunnelHasTwoDirections(t *testing.T) {
	a, inner := tcp(t)
	other, b := tcp(t)
	go join(t.Context(), &slotted{Conn: inner, free: func() {}}, other, time.Hour)
	if _, err := io.WriteString(a, "question"); err != nil {
		t.Fatal(err)
	}
	if err := closeWrite(a); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(b); string(got) != "question" || err != nil {
		t.Fatalf("the far end got %q, %v", got, err)
	}
	if _, err := io.WriteString(b, "answer"); err != nil {
		t.Fatal(err)
	}
	b.Close()
	if got, err := io.ReadAll(a); string(got) != "answer" || err != nil {
		t.Errorf("the client got %q, %v", got, err)
	}
}

func tcp(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestAProxyThatSaysNothingIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		go func() { _, _ = io.Copy(io.Discard, far) }()
		ctx, cancel := context.WithTimeout(t.Context(), dialTime)
		defer cancel()
		began := time.Now()
		if _, err := ask(ctx, near, "a:1", ""); err == nil || time.Since(began) != dialTime {
			t.Errorf("ask() = %v after %v", err, time.Since(began))
		}
		near.Close()
	})
}

// What comes right behind the answer belongs to the tunnel.
func TestNothingOfATunnelIsLost(t *testing.T) {
	conn, err := answered(t, "HTTP/1.1 200 ok\r\nX: y\r\n\r\nhello")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); string(got) != "hello" || err != nil {
		t.Errorf("the tunnel brings %q, %v", got, err)
	}
}

func TestAnEndlessAnswerIsRefused(t *testing.T) {
	if _, err := answered(t, "HTTP/1.1 200 ok\r\nX: "+strings.Repeat("x", 2*mostHeader)); err == nil {
		t.Error("an answer of more than 64 KiB is taken")
	}
}

func FuzzAsk(f *testing.F) {
	for _, s := range []string{"HTTP/1.1 200 ok\r\n\r\nx", "HTTP/1.0 407 no\r\n\r\n", "HTTP/1.1 100 go on\r\n\r\n", "", "\x16\x03\x01"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, answer string) {
		conn, err := answered(t, answer)
		if err != nil {
			return
		}
		rest, _ := io.ReadAll(conn)
		if !strings.HasPrefix(answer, "HTTP/") || !strings.HasSuffix(answer, string(rest)) {
			t.Errorf("%q makes a tunnel that brings %q", answer, rest)
		}
	})
}

// answered asks a proxy that answers with text, and nothing after it.
func answered(t *testing.T, text string) (net.Conn, error) {
	t.Helper()
	near, far := net.Pipe()
	t.Cleanup(func() { near.Close() })
	go func() {
		defer far.Close()
		from := bufio.NewReader(far)
		for line := ""; line != "\r\n"; {
			var err error
			if line, err = from.ReadString('\n'); err != nil {
				return
			}
		}
		_, _ = io.WriteString(far, text)
	}()
	return ask(t.Context(), near, "example.net:443", "Basic eA==")
}
