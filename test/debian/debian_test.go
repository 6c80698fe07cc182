package debian

import (
	"slices"
	"strings"
	"testing"
)

const help = `Description
  Manage IncusOS systems

Available Commands:
  application  Manage IncusOS applications
    add             Add an application
    backup          Backup the application
  debug        Debug IncusOS systems
    kernel       Show kernel debug information
    secureboot   Debug IncusOS secureboot
      event-log    Show the TPM event log
      update       Update the secureboot keys
  info         Show system information

Global Flags:
      --debug          Show all debug messages
`

func TestLeaves(t *testing.T) {
	want := []string{"application add", "application backup", "debug kernel", "debug secureboot event-log", "debug secureboot update", "info"}
	if got := leaves(help); !slices.Equal(got, want) {
		t.Errorf("leaves() = %q, want %q", got, want)
	}
}

func FuzzLeaves(f *testing.F) {
	f.Add(help)
	f.Add("\nAvailable Commands:\n      deep\n  a\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, c := range leaves(text) {
			if c == "" || strings.ContainsAny(c, "\n\t") {
				t.Errorf("%q is no command", c)
			}
		}
	})
}

func TestUncovered(t *testing.T) {
	commands := []string{"show", "system storage delete", "system storage delete-volume"}
	untold, unknown := Uncovered(commands, []Step{{Do: "show -f json"}, {Do: "system storage delete-volume --force"}, {Do: "shower"}})
	if !slices.Equal(untold, []string{"system storage delete"}) || !slices.Equal(unknown, []string{"shower"}) {
		t.Errorf("Uncovered() = %q and %q, want the command without a step and the step without a command", untold, unknown)
	}
}

func TestStepNotices(t *testing.T) {
	well, failed := Result{Out: "config: {}\n", Err: "WARNING: subject to change\n"}, Result{1, "", "Error: no such thing\n"}
	tests := map[string]struct {
		step Step
		got  Result
		says string // "" for nothing
	}{
		"what was expected":           {Step{Out: `^config: \{\}$`}, well, ""},
		"an expected error":           {Step{Err: "such thing"}, failed, ""},
		"silence":                     {Step{}, Result{}, ""},
		"other output":                {Step{Out: "^state:"}, well, `want "^state:"`},
		"output where none should be": {Step{}, well, "want nothing"},
		"an error":                    {Step{Out: "config"}, failed, "it failed"},
		"no error":                    {Step{Err: "no"}, well, "it did not fail"},
		"another error":               {Step{Err: "no certificate"}, failed, `says "no such thing"`},
		"a crash":                     {Step{Err: "no such thing"}, Result{2, "", failed.Err}, "with status 1"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := tt.step.check(tt.got)
			if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("check() = %v, want %q", err, tt.says)
			}
		})
	}
}
