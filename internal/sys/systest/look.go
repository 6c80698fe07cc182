package systest

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// running writes what the kernel shows of modules, the processor and a few
// processes.
func (t *tree) running() {
	t.write("/proc/modules", "zfs 6500352 5 - Live 0x0000000000000000 (POE)\n"+
		"spl 163840 1 zfs, Live 0x0000000000000000 (OE)\n"+
		"bridge 389120 0 - Live 0x0000000000000000\n"+
		"stp 12288 1 bridge, Live 0x0000000000000000\n")
	t.write("/proc/cpuinfo", "processor\t: 0\nmodel name\t: Pretend CPU\nflags\t\t: fpu cx8 cmov mmx fxsr sse2 syscall lm pni ssse3 cx16 sse4_1 sse4_2 popcnt lahf_lm "+
		"fma movbe xsave avx f16c abm bmi1 avx2 bmi2\n\n")
	t.write("/proc/loadavg", "0.25 0.50 0.75 1/120 300\n")
	t.write("/proc/self/statm", "300000 5120 2560 1000 0 9000 0\n")
	t.process(1, 0, "systemd", "/usr/lib/systemd/systemd")
	t.process(2, 0, "kthreadd", "")
	t.process(10, 2, "kworker/0:1", "")
	t.process(200, 1, "incus-osd", "/usr/bin/incus-osd")
	t.process(300, 1, "incusd", "/usr/libexec/incus/incusd", "--group", "incus-admin")
}

// process writes what /proc says of a process that has run for a second.
func (t *tree) process(pid, parent int, name string, command ...string) {
	dir := fmt.Sprintf("/proc/%d", pid)
	t.write(dir+"/stat", fmt.Sprintf("%d (%s) S %d %d %d 0 -1 4194560 0 0 0 0 50 50 0 0 20 0 1 0 %d 20971520 256 0\n", pid, name, parent, pid, pid, pid))
	t.write(dir+"/status", "Name:\t"+name+"\nUid:\t0\t0\t0\t0\n")
	t.write(dir+"/cmdline", strings.TrimLeft(strings.Join(command, "\x00")+"\x00", "\x00"))
}

// A measurement is what firmware extends a PCR with.
type measurement struct {
	pcr  int
	kind uint32
	data string
}

// measurements of a machine with Secure Boot that starts one program.
func measurements() []measurement {
	const variable, application, separator, ipl = 0x80000001, 0x80000003, 0x4, 0xd
	return []measurement{
		{0, separator, "\x00\x00\x00\x00"},
		{7, variable, "SecureBoot"},
		{7, variable, "PK"},
		{7, separator, "\x00\x00\x00\x00"},
		{4, application, "systemd-boot"},
		{11, ipl, ".linux"},
	}
}

// tpm writes the event log (TCG PC Client Platform Firmware Profile, section
// 10.2) with SHA-256 digests alone, and the registers that follow from it.
func (t *tree) tpm() {
	le := binary.LittleEndian
	id := append([]byte("Spec ID Event03\x00"), 0, 0, 0, 0, 0, 2, 0, 2, 1, 0, 0, 0, 0xb, 0, sha256.Size, 0, 0)
	log := append([]byte{0, 0, 0, 0, 3, 0, 0, 0}, make([]byte, 20)...)
	log = append(le.AppendUint32(log, uint32(len(id))), id...) //nolint:gosec // 33
	registers := make([][sha256.Size]byte, 24)
	for _, m := range measurements() {
		digest := sha256.Sum256([]byte(m.data))
		log = le.AppendUint32(log, uint32(m.pcr)) //nolint:gosec // at most 23
		log = le.AppendUint32(log, m.kind)
		log = append(log, 1, 0, 0, 0, 0xb, 0)
		log = append(log, digest[:]...)
		log = append(le.AppendUint32(log, uint32(len(m.data))), m.data...) //nolint:gosec // a few bytes
		registers[m.pcr] = sha256.Sum256(slices.Concat(registers[m.pcr][:], digest[:]))
	}
	t.write("/sys/kernel/security/tpm0/binary_bios_measurements", string(log))
	for i, r := range registers {
		t.write(fmt.Sprintf("/sys/class/tpm/tpm0/pcr-sha256/%d", i), fmt.Sprintf("%X\n", r))
	}
}
