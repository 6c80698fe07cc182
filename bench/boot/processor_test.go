package main

import "testing"

func TestWhereTheProcessorsAre(t *testing.T) {
	const (
		firmware = "RIP=000000007eb3c9d5 RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=0\n"
		kernel   = "RIP=ffffffff81e0b3ab RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1\n"
		program  = "RIP=00007f1c2d3e4f50 RFL=00000246 [---Z-P-] CPL=3 II=0 A20=1 SMM=0 HLT=0\n"
	)
	tests := map[string]struct {
		registers         string
		inKernel, running bool
	}{
		"firmware on both":       {firmware + firmware, false, false},
		"the kernel on one":      {firmware + kernel, true, false},
		"a program and a kernel": {program + kernel, true, true},
		"another architecture":   {"PC=ffff800010081a10 X00=0", false, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if k, p := where(tt.registers); k != tt.inKernel || p != tt.running {
				t.Errorf("where() = %v, %v, want %v, %v", k, p, tt.inKernel, tt.running)
			}
		})
	}
}
