package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

const (
	journald = "systemd-journald.service"
	netlogd  = "systemd-netlogd.service"

	// The journal's limits outlive a boot: with those of the image, journald would
	// throw away at each start what the operator wants to keep.
	journalFile  = "/etc/systemd/journald.conf.d/20-incus-os.conf"
	journalStamp = "/run/incus-os/logging.journald"
	journalDir   = "/var/log/journal"

	netlogdFile  = "/run/systemd/netlogd.conf.d/20-incus-os.conf"
	netlogdStamp = "/run/incus-os/logging.netlogd"
	netlogdUnit  = "/usr/lib/systemd/system/" + netlogd
)

// A Log brings what is kept of the log, and where it is sent, to an
// api.SystemLoggingConfig.
type Log struct{ host sys.Host }

// NewLog returns the log of host.
func NewLog(host sys.Host) *Log { return &Log{host} }

// Name is the area's name in health reports.
func (*Log) Name() string { return "logging" }

// Plan says what Apply would do.
func (l *Log) Plan(ctx context.Context, cfg api.SystemLoggingConfig) (api.Plan, error) {
	steps, err := l.steps(ctx, cfg)
	return planOf(steps), err
}

// Apply makes the log match cfg. It does nothing to what already does, and after
// an error it can be called again.
func (l *Log) Apply(ctx context.Context, cfg api.SystemLoggingConfig) error {
	steps, err := l.steps(ctx, cfg)
	if err != nil {
		return err
	}
	return take(ctx, steps)
}

func (l *Log) steps(ctx context.Context, cfg api.SystemLoggingConfig) ([]step, error) {
	keep, err := l.keep(cfg.Journal)
	if err != nil {
		return nil, err
	}
	forward, err := l.forward(ctx, cfg.Syslog)
	return append(keep, forward...), err
}

// keep looks after the log on this machine. Journald reads its limits when it
// starts; whoever writes to it does not notice that it is started anew.
func (l *Log) keep(j api.LoggingJournal) ([]step, error) {
	content, err := l.journalConfig(j)
	if err != nil {
		return nil, err
	}
	d := delivery{l.host.Files, journalFile, content, journalStamp}
	due, err := d.due()
	if err != nil || !due {
		return nil, err
	}
	action := "write"
	if content == "" {
		action = "remove"
	}
	return []step{
		newStep(action, journalFile, func(context.Context) error { return inOrder(d.begin, d.write) }),
		newStep("restart", journald, func(ctx context.Context) error {
			if err := l.host.Units.Restart(ctx, journald); err != nil {
				return err
			}
			return d.done()
		}).withRisk("older entries beyond the limits are deleted"),
	}, nil
}

// journalConfig is the content of journalFile (journald.conf(5)), "" for the
// limits of the image.
func (l *Log) journalConfig(j api.LoggingJournal) (string, error) {
	var b strings.Builder
	if j.MaxSize != "" {
		size, err := api.ParseSize(j.MaxSize)
		if err != nil {
			return "", api.Fieldf("journal.max_size", "%v", err)
		}
		whole, _, err := l.host.Mounts.Usage("/var")
		if err != nil {
			return "", fmt.Errorf("asking how much room there is for the log: %w", err)
		}
		if size >= whole {
			return "", api.Fieldf("journal.max_size", "%q is all the room there is or more; want less than %d MiB", j.MaxSize, whole>>20)
		}
		fmt.Fprintf(&b, "SystemMaxUse=%d\n", size)
	}
	if j.MaxAge != "" {
		age, err := time.ParseDuration(j.MaxAge)
		if err != nil {
			return "", api.Fieldf("journal.max_age", "%v", err)
		}
		// Entries go by whole files; eight of them make up the age.
		fmt.Fprintf(&b, "MaxRetentionSec=%ds\nMaxFileSec=%ds\n", int(age.Seconds()), int(age.Seconds())/8)
	}
	if b.Len() == 0 {
		return "", nil
	}
	return "[Journal]\n" + b.String(), nil
}

// forward looks after the copy of the log that a server gets.
func (l *Log) forward(ctx context.Context, s api.LoggingSyslog) ([]step, error) {
	if s.Address != "" && !l.host.Files.Exists(netlogdUnit) {
		return nil, api.Errorf(api.Unsupported, "this image cannot send its log to a server: it has no %s", netlogd)
	}
	d := delivery{l.host.Files, netlogdFile, netlogdConfig(s), netlogdStamp}
	due, err := d.due()
	if err != nil {
		return nil, err
	}
	if s.Address == "" {
		if !due {
			return nil, nil
		}
		return []step{newStep("stop", "sending the log to a server", func(ctx context.Context) error {
			if err := inOrder(d.begin, func() error { return l.host.Units.Stop(ctx, netlogd) }, d.write); err != nil {
				return err
			}
			return d.done()
		})}, nil
	}
	state, err := l.host.Units.State(ctx, netlogd)
	if err != nil {
		return nil, err
	}
	if !due && state != "failed" && state != "inactive" {
		return nil, nil
	}
	where := s.Address + " over " + cmp.Or(s.Protocol, "udp")
	return []step{newStep("send", "the log to "+where, func(ctx context.Context) error {
		return inOrder(d.begin, d.write, func() error { return l.startForwarder(ctx, state) }, d.done)
	})}, nil
}

// startForwarder has the forwarder read its file.
func (l *Log) startForwarder(ctx context.Context, state string) error {
	if state == "inactive" {
		// Early in the boot it has to wait for the network, and nothing here for it.
		return l.host.Units.Queue(ctx, netlogd)
	}
	return l.host.Units.Restart(ctx, netlogd)
}

// netlogdConfig is the content of netlogdFile (systemd-netlogd(8)), "" for no
// server. What netlogd calls rfc3339 is the form of RFC 3164, but for the time.
func netlogdConfig(s api.LoggingSyslog) string {
	if s.Address == "" {
		return ""
	}
	format := cmp.Or(s.LogFormat, "rfc5424")
	if format == "rfc3164" {
		format = "rfc3339"
	}
	return fmt.Sprintf("[Network]\nAddress=%s\nProtocol=%s\nLogFormat=%s\n", s.Address, cmp.Or(s.Protocol, "udp"), format)
}

// State reports how large the log is, and whether it is sent, if it should be.
func (l *Log) State(ctx context.Context, cfg api.SystemLoggingConfig) (api.SystemLoggingState, error) {
	size, err := l.journalSize(journalDir)
	s := api.SystemLoggingState{JournalSize: size}
	if err != nil || cfg.Syslog.Address == "" {
		return s, err
	}
	s.SyslogStatus, err = l.host.Units.State(ctx, netlogd)
	return s, err
}

// journalSize adds up the files of the journal, which has a directory for each
// machine id.
func (l *Log) journalSize(dir string) (uint64, error) {
	entries, err := l.host.Files.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("asking how large the log is: %w", err)
	}
	var total uint64
	for _, e := range entries {
		if e.IsDir() {
			size, err := l.journalSize(dir + "/" + e.Name())
			if err != nil {
				return 0, err
			}
			total += size
		} else if fi, err := e.Info(); err == nil { // one that is gone was vacuumed
			total += uint64(fi.Size()) //nolint:gosec // not negative
		}
	}
	return total, nil
}
