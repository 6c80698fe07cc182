package iscsi

import (
	"bytes"
	"crypto/md5" //nolint:gosec // CHAP has no other
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
)

// The stages of a login, in two bits of its flags.
const (
	security = 0
	full     = 3
)

// challenge is the same for everybody: nobody attacks this target.
var challenge = []byte("sixteen bytes...")

const authenticationFailure = 0x0201

// login takes the initiator to the full feature phase (RFC 7143, section 6.3).
func (s *session) login() error {
	s.keys = make(map[string]string)
	for {
		p, err := s.read()
		if err != nil {
			return err
		}
		if p.op() != opLogin {
			return errors.New("the first PDU is no login")
		}
		s.next = p.word(24)
		asked := make(map[string]string)
		for pair := range strings.SplitSeq(string(p.data), "\x00") {
			if key, value, ok := strings.Cut(pair, "="); ok {
				asked[key], s.keys[key] = value, value
			}
		}
		stage, following, leave := p.head[1]>>2&3, p.head[1]&3, p.head[1]&final != 0
		answers, refused := s.negotiate(stage, asked)
		a := p.answer(opLogin | reply)
		copy(a.head[8:16], p.head[8:16]) // ISID and TSIH
		a.head[1] = stage << 2
		switch {
		case refused:
			a.head[36], a.head[37] = authenticationFailure>>8, authenticationFailure&0xff
		case leave && (stage != security || s.admit):
			a.head[1] |= final | following
		}
		if leave && following == full && !refused {
			s.begin(a)
		}
		a.data = []byte(answers)
		if err := s.write(a, true); err != nil {
			return err
		}
		if refused {
			return errors.New("the initiator does not know the secret")
		}
		if leave && following == full {
			return nil
		}
	}
}

// begin gives the session its number.
func (s *session) begin(a *pdu) {
	s.target.mu.Lock()
	defer s.target.mu.Unlock()
	s.target.serial++
	a.head[14], a.head[15] = byte(s.target.serial>>8), byte(s.target.serial)
	if s.keys["SessionType"] != "Discovery" {
		s.target.logins++
	}
	if most, err := strconv.Atoi(s.keys["MaxRecvDataSegmentLength"]); err == nil {
		s.most = min(most, 256<<10)
	}
}

// negotiate answers keys. All data is asked for and nothing comes with a command,
// which is the least to understand.
func (s *session) negotiate(stage byte, asked map[string]string) (answers string, refused bool) {
	var b strings.Builder
	say := func(key, value string) { b.WriteString(key + "=" + value + "\x00") }
	if stage == security {
		refused = s.authenticate(asked, say)
		return b.String(), refused
	}
	mine := map[string]string{
		"HeaderDigest": "None", "DataDigest": "None", "InitialR2T": "Yes", "ImmediateData": "No", "MaxConnections": "1",
		"MaxOutstandingR2T": "1", "ErrorRecoveryLevel": "0", "IFMarker": "No", "OFMarker": "No",
	}
	for key, value := range asked {
		switch {
		case mine[key] != "":
			say(key, mine[key])
		case key == "MaxRecvDataSegmentLength":
			say(key, "262144")
		case strings.HasSuffix(key, "BurstLength"), strings.HasPrefix(key, "DefaultTime"), strings.HasSuffix(key, "InOrder"):
			say(key, value)
		}
	}
	return b.String(), false
}

// authenticate is CHAP (RFC 7143, section 12.1.3).
func (s *session) authenticate(asked map[string]string, say func(key, value string)) (refused bool) {
	switch {
	case asked["AuthMethod"] != "":
		say("TargetPortalGroupTag", "1")
		s.admit = s.target.Secret == ""
		if s.admit {
			say("AuthMethod", "None")
			return false
		}
		if !strings.Contains(asked["AuthMethod"], "CHAP") {
			return true
		}
		say("AuthMethod", "CHAP")
	case asked["CHAP_A"] != "":
		say("CHAP_A", "5")
		say("CHAP_I", "1")
		say("CHAP_C", "0x"+hex.EncodeToString(challenge))
	case asked["CHAP_R"] != "":
		sum := md5.Sum(bytes.Join([][]byte{{1}, []byte(s.target.Secret), challenge}, nil)) //nolint:gosec // as above
		s.admit = asked["CHAP_N"] == s.target.User && strings.EqualFold(strings.TrimPrefix(asked["CHAP_R"], "0x"), hex.EncodeToString(sum[:]))
		return !s.admit
	}
	return false
}
