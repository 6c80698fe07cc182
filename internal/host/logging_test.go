package host_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/host"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

const (
	journalFile = "/etc/systemd/journald.conf.d/20-incus-os.conf"
	netlogdFile = "/run/systemd/netlogd.conf.d/20-incus-os.conf"
	netlogd     = "systemd-netlogd.service"
)

func sent() api.SystemLoggingConfig {
	return api.SystemLoggingConfig{
		Syslog:  api.LoggingSyslog{Address: "192.0.2.14:6514", Protocol: "tls", LogFormat: "rfc3164"},
		Journal: api.LoggingJournal{MaxSize: "1GiB", MaxAge: "240h"},
	}
}

func TestLogIsKeptAndSent(t *testing.T) {
	rig := logMachine(t)
	l := host.NewLog(rig.Host)
	applyLog(t, l, sent())
	expectLog(t, rig, "[Journal]\nSystemMaxUse=1073741824\nMaxRetentionSec=864000s\nMaxFileSec=108000s\n",
		"[Network]\nAddress=192.0.2.14:6514\nProtocol=tls\nLogFormat=rfc3339\n", "active")
	expectNoLogSteps(t, l, sent())

	if err := rig.Host.Units.Stop(t.Context(), netlogd); err != nil {
		t.Fatal(err)
	}
	applyLog(t, l, sent()) // it has died
	expectLog(t, rig, "[Journal]\nSystemMaxUse=1073741824\nMaxRetentionSec=864000s\nMaxFileSec=108000s\n",
		"[Network]\nAddress=192.0.2.14:6514\nProtocol=tls\nLogFormat=rfc3339\n", "active")

	moved := sent()
	moved.Syslog.Address = "[2001:db8::14]:514"
	rig.Units.Fail(netlogd, errors.New("no such library"))
	if err := l.Apply(t.Context(), moved); err == nil || !strings.Contains(err.Error(), "cannot send the log to [2001:db8::14]:514 over tls: no such library") {
		t.Errorf("a forwarder that does not start: %v", err)
	}
	if err := l.Apply(t.Context(), moved); err == nil {
		t.Error("a forwarder that does not start is forgotten")
	}
	rig.Units.Fail(netlogd, nil)

	applyLog(t, l, api.SystemLoggingConfig{})
	expectLog(t, rig, "", "", "inactive")
	expectNoLogSteps(t, l, api.SystemLoggingConfig{})
}

// Each effect fails once, on the way there or on the way back; applying again
// finishes the work.
func TestLogConvergesAfterAnyFailure(t *testing.T) {
	for failing := 1; ; failing++ {
		rig := logMachine(t)
		cut := &systest.Cutter{At: failing}
		l := host.NewLog(cut.Host(rig.Host))
		err := l.Apply(t.Context(), sent())
		if err == nil {
			err = l.Apply(t.Context(), api.SystemLoggingConfig{})
		}
		if cut.Over() {
			if err != nil || failing < 15 {
				t.Fatalf("after %d effects: %v", failing, err)
			}
			return
		}
		if err == nil {
			t.Errorf("effect %d fails and nobody says so", failing)
		}
		applyLog(t, l, sent())
		expectNoLogSteps(t, l, sent())
		applyLog(t, l, api.SystemLoggingConfig{})
		expectLog(t, rig, "", "", "inactive")
		expectNoLogSteps(t, l, api.SystemLoggingConfig{})
	}
}

func TestWhatTheLogCannotDoIsRefused(t *testing.T) {
	rig := logMachine(t)
	l := host.NewLog(rig.Host)
	_, err := l.Plan(t.Context(), api.SystemLoggingConfig{Journal: api.LoggingJournal{MaxSize: "1TiB"}})
	if _, ok := errors.AsType[*api.FieldError](err); !ok || !strings.HasPrefix(err.Error(), `journal.max_size: "1TiB" is all the room there is or more; want less than 25600 MiB`) {
		t.Errorf("a log larger than the disk: %v", err)
	}
	if err := rig.Host.Files.Remove("/usr/lib/systemd/system/" + netlogd); err != nil {
		t.Fatal(err)
	}
	_, err = l.Plan(t.Context(), sent())
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Kind != api.Unsupported {
		t.Errorf("a log sent by nobody: %v", err)
	}
}

func TestLogState(t *testing.T) {
	rig := logMachine(t)
	l := host.NewLog(rig.Host)
	write(t, rig.Host.Files, "/var/log/journal/0123/system.journal", strings.Repeat("x", 4096))
	write(t, rig.Host.Files, "/var/log/journal/0123/system@1.journal", strings.Repeat("x", 1000))
	applyLog(t, l, sent())
	want := api.SystemLoggingState{JournalSize: 5096, SyslogStatus: "active"}
	if got, err := l.State(t.Context(), sent()); err != nil || got != want {
		t.Errorf("state is %+v, %v; want %+v", got, err, want)
	}
}

func logMachine(t *testing.T) *systest.Rig {
	t.Helper()
	return systest.New(t, systest.Sensible())
}

func applyLog(t *testing.T, l *host.Log, cfg api.SystemLoggingConfig) {
	t.Helper()
	if err := errors.Join(cfg.Validate(), l.Apply(t.Context(), cfg)); err != nil {
		t.Fatal(err)
	}
}

func expectNoLogSteps(t *testing.T, l *host.Log, cfg api.SystemLoggingConfig) {
	t.Helper()
	p, err := l.Plan(t.Context(), cfg)
	if err != nil || !p.Empty() {
		t.Errorf("plan of what is applied: %v\n%s", err, p)
	}
}

// expectLog compares the files, "" for none, and what the forwarder is doing.
func expectLog(t *testing.T, rig *systest.Rig, journal, forwarder, state string) {
	t.Helper()
	for file, want := range map[string]string{journalFile: journal, netlogdFile: forwarder} {
		if got := content(rig.Host.Files, file); got != want {
			t.Errorf("%s holds %q; want %q", file, got, want)
		}
	}
	if got, err := rig.Host.Units.State(t.Context(), netlogd); err != nil || got != state {
		t.Errorf("the forwarder is %q, %v; want %q", got, err, state)
	}
}

func content(files sys.Dir, name string) string {
	b, err := files.ReadFile(name)
	if err != nil {
		return ""
	}
	return string(b)
}
