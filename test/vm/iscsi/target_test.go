package iscsi

import (
	"bytes"
	"crypto/md5" //nolint:gosec // CHAP has no other
	"encoding/hex"
	"fmt"
	"net"
	"strings"
	"testing"
)

// An initiator that knows just enough to see that the target answers as it should.
type initiator struct {
	t    *testing.T
	conn net.Conn
	sn   uint32
}

func dial(t *testing.T, target *Target, portal int) *initiator {
	t.Helper()
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", target.Ports()[portal]))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &initiator{t: t, conn: c, sn: 7}
}

func (i *initiator) send(p *pdu) {
	i.t.Helper()
	p.set(map[int]uint32{4: uint32(len(p.data)), 24: i.sn})
	if _, err := i.conn.Write(append(p.head[:], append(p.data, make([]byte, (4-len(p.data)%4)%4)...)...)); err != nil {
		i.t.Fatal(err)
	}
}

func (i *initiator) read() *pdu {
	i.t.Helper()
	p, err := (&session{conn: i.conn}).read()
	if err != nil {
		i.t.Fatal(err)
	}
	return p
}

func (i *initiator) login(flags byte, pairs ...string) *pdu {
	i.t.Helper()
	p := &pdu{data: []byte(strings.Join(pairs, "\x00") + "\x00")}
	p.head[0], p.head[1] = opLogin|immediate, flags
	i.send(p)
	return i.read()
}

// full logs in without a secret.
func (i *initiator) full() {
	i.t.Helper()
	i.login(final|1, "AuthMethod=None", "SessionType=Normal")
	if a := i.login(final|1<<2|3, "HeaderDigest=None", "MaxRecvDataSegmentLength=4096"); a.head[1]&(final|3) != final|3 {
		i.t.Fatalf("the login went to %08b", a.head[1])
	}
}

// command sends one and returns data, status and sense.
func (i *initiator) command(flags byte, cdb []byte, wanted uint32, out []byte) (data []byte, status byte, sense []byte) {
	i.t.Helper()
	p := new(pdu).set(map[int]uint32{16: i.sn, 20: wanted})
	p.head[0], p.head[1] = opCommand, final|flags
	copy(p.head[32:], cdb)
	i.send(p)
	i.sn++
	for {
		switch a := i.read(); a.op() {
		case opDataIn:
			data = append(data, a.data...)
		case opR2T:
			at, size := a.word(40), a.word(44)
			d := new(pdu).set(map[int]uint32{16: a.word(16), 20: a.word(20), 40: at})
			d.head[0], d.head[1], d.data = opDataOut, final, out[at:at+size]
			i.send(d)
		default:
			return data, a.head[3], a.data
		}
	}
}

func open(t *testing.T, secret string) *Target {
	t.Helper()
	target := &Target{Name: "iqn.2026-01.org.example:disk", WWN: 0x5000000000000a11, User: "operator", Secret: secret, Gateway: "10.0.2.2"}
	if err := target.Open(1<<20, 2); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { target.Close() })
	return target
}

func TestDiskIsOneAtBothPortals(t *testing.T) {
	target := open(t, "")
	first, second := dial(t, target, 0), dial(t, target, 1)
	first.full()
	second.full()
	content := bytes.Repeat([]byte("0123456789abcdef"), 200<<10/16)
	if _, status, sense := first.command(0x20, []byte{0x2a, 5: 8, 7: 400 >> 8, 8: 400 & 0xff, 9: 0}, 200<<10, content); status != 0 {
		t.Fatalf("WRITE ended with %d, %x", status, sense)
	}
	data, status, _ := second.command(0x40, []byte{0x88, 9: 8, 12: 400 >> 8, 13: 400 & 0xff, 15: 0}, 200<<10, nil)
	if status != 0 || !bytes.Equal(data, content) {
		t.Errorf("READ ended with %d and %d bytes, want what was written by the other path", status, len(data))
	}
	page, _, _ := first.command(0x40, []byte{0x12, 1, 0x83, 0, 255, 0}, 255, nil)
	if want := "0083000c" + "01030008" + "5000000000000a11"; hex.EncodeToString(page) != want {
		t.Errorf("page 83h is %x, want %s", page, want)
	}
	if _, status, sense := first.command(0x40, []byte{0x28, 3: 1, 8: 1, 9: 0}, 512, nil); status != 2 || len(sense) != 20 || sense[14] != 0x21 {
		t.Errorf("READ beyond the end ended with %d, %x", status, sense)
	}
	if target.Logins() != 2 {
		t.Errorf("Logins() = %d, want 2", target.Logins())
	}
}

func TestDiscovery(t *testing.T) {
	target := open(t, "")
	i := dial(t, target, 0)
	i.login(final|1, "AuthMethod=None", "SessionType=Discovery")
	i.login(final | 1<<2 | 3)
	p := &pdu{data: []byte("SendTargets=All\x00")}
	p.head[0], p.head[1] = opText, final
	i.send(p)
	want := fmt.Sprintf("TargetName=iqn.2026-01.org.example:disk\x00TargetAddress=10.0.2.2:%d,1\x00TargetAddress=10.0.2.2:%d,1\x00", target.Ports()[0], target.Ports()[1])
	if a := i.read(); string(a.data) != want {
		t.Errorf("discovery tells %q, want %q", a.data, want)
	}
}

func TestSecret(t *testing.T) {
	target := open(t, "twelve-letters")
	for secret, want := range map[string]byte{"twelve-letters": 0, "another-secret": 2} {
		i := dial(t, target, 0)
		i.login(final|1, "AuthMethod=CHAP,None")
		a := i.login(1, "CHAP_A=5")
		_, c, _ := strings.Cut(string(a.data), "CHAP_C=0x")
		given, err := hex.DecodeString(strings.TrimRight(c, "\x00"))
		if err != nil {
			t.Fatal(err)
		}
		sum := md5.Sum(append(append([]byte{1}, secret...), given...)) //nolint:gosec // as above
		a = i.login(final|1, "CHAP_N=operator", "CHAP_R=0x"+hex.EncodeToString(sum[:]))
		if a.head[36] != want {
			t.Errorf("with %q the login ended with class %d, want %d", secret, a.head[36], want)
		}
	}
	if a := dial(t, target, 0).login(final|1, "AuthMethod=None"); a.head[36] != 2 {
		t.Errorf("without a secret the login ended with class %d", a.head[36])
	}
}
