// Package vm runs machines in QEMU as they are sold: with a TPM, with Secure
// Boot, with a serial console and nothing preinstalled.
//
// A Machine is a directory: disks, firmware variables, TPM. Start turns it into
// a Running one, whose Console sees every line the serial port prints and whose
// Monitor pulls out sticks and presses buttons. Up strings these together for
// `incusos vm run`; the scenarios of test/vm use the pieces by themselves.
//
// QEMU, its firmware and swtpm come from a Debian tree given by path and are
// run through that tree's own dynamic loader, so that the host's versions do
// not matter. What differs between architectures is in arch.go and nowhere
// else. Processes are started through package sys only and end with the caller.
//
// Install media are made by package media beside this one; the two do not know
// each other, package main of cmd/incusos joins them.
package vm
