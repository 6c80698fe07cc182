package vm

import (
	"os"
	"path/filepath"
	"testing"
)

func TestStartDirectLeavesTheMachineAsItIs(t *testing.T) {
	m := create(t, fakeTools(t))
	before := len(m.arguments(Boot{}, TCG, sockets{"/s"}, 1))
	if _, err := m.StartDirect(t.Context(), Direct{Kernel: "kernel", Initrd: "initrd", CommandLine: "root=/dev/vda"}); err == nil {
		t.Fatal("StartDirect() started an empty file")
	}
	if after := len(m.arguments(Boot{}, TCG, sockets{"/s"}, 1)); after != before {
		t.Errorf("StartDirect() left %d arguments behind", after-before)
	}
	if _, err := os.Stat(filepath.Join(m.Dir(), varsFile)); err != nil {
		t.Error(err)
	}
}
