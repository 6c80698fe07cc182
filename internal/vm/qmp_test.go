package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// fakeQEMU answers commands as QEMU does and reports the events that follow
// from them.
func fakeQEMU(t *testing.T) *Monitor {
	t.Helper()
	ours, theirs := net.Pipe()
	go serveQMP(theirs)
	q, err := newMonitor(t.Context(), ours)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close() })
	return q
}

func serveQMP(conn net.Conn) {
	defer conn.Close()
	say := func(format string, args ...any) { fmt.Fprintf(conn, format+"\r\n", args...) }
	say(`{"QMP": {"version": {"qemu": {"major": 10}}, "capabilities": []}}`)
	d := json.NewDecoder(conn)
	for ready := false; ; {
		var c struct {
			Execute   string
			Arguments map[string]string
			ID        int
		}
		if d.Decode(&c) != nil {
			return
		}
		switch {
		case c.Execute == "qmp_capabilities":
			ready = true
			say(`{"return": {}, "id": %d}`, c.ID)
		case !ready:
			say(`{"id": %d, "error": {"class": "CommandNotFound", "desc": "negotiate first"}}`, c.ID)
		case c.Execute == "device_del" && c.Arguments["id"] == "medium":
			say(`{"event": "DEVICE_DELETED", "data": {"device": "medium"}}`) // before the answer, as it may
			say(`{"return": {}, "id": %d}`, c.ID)
		case c.Execute == "system_reset":
			say(`{"return": {}, "id": %d}`, c.ID)
			say(`{"event": "RESET", "data": {"guest": false}}`)
		case c.Execute == "query-status":
			say(`{"return": {"status": "running"}, "id": %d}`, c.ID)
		case c.Execute == "quit":
			return
		default:
			say(`{"id": %d, "error": {"class": "GenericError", "desc": "no such thing"}}`, c.ID)
		}
	}
}

func TestMonitorReturnsAnswers(t *testing.T) {
	q := fakeQEMU(t)
	var got struct{ Status string }
	if err := q.Execute(t.Context(), "query-status", nil, &got); err != nil || got.Status != "running" {
		t.Errorf("Execute(query-status) = %+v, %v, want running", got, err)
	}
}

func TestMonitorRepeatsRefusals(t *testing.T) {
	err := fakeQEMU(t).Execute(t.Context(), "dance", nil, nil)
	if want := "asking QEMU for dance: GenericError: no such thing"; err == nil || err.Error() != want {
		t.Errorf("Execute() = %v, want %q", err, want)
	}
}

func TestMonitorKeepsEventsUntilSomebodyWaits(t *testing.T) {
	q := fakeQEMU(t)
	if err := q.Unplug(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := q.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	e, err := q.Wait(t.Context(), "SHUTDOWN", "RESET")
	if err != nil || e.Name != "RESET" || e.Data["guest"] != false {
		t.Errorf("Wait() = %+v, %v, want RESET by the host", e, err)
	}
}

func TestMonitorNoticesTheEnd(t *testing.T) {
	q := fakeQEMU(t)
	if err := q.Quit(t.Context()); err != nil {
		t.Errorf("Quit() = %v, want nil", err)
	}
	if _, err := q.Wait(t.Context(), "RESET"); !errors.Is(err, ErrEnded) {
		t.Errorf("Wait() = %v, want %v", err, ErrEnded)
	}
	if err := q.Reset(t.Context()); !errors.Is(err, ErrEnded) {
		t.Errorf("Reset() = %v, want %v", err, ErrEnded)
	}
}

func TestMonitorWaitsNoLongerThanAsked(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := fakeQEMU(t).Wait(ctx, "SHUTDOWN")
	if err == nil || !strings.Contains(err.Error(), "SHUTDOWN") {
		t.Errorf("Wait() = %v, want an error that names SHUTDOWN", err)
	}
}
