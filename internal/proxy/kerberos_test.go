package proxy

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jcmturner/gofork/encoding/asn1"
	"github.com/jcmturner/gokrb5/v8/crypto"
	"github.com/jcmturner/gokrb5/v8/gssapi"
	"github.com/jcmturner/gokrb5/v8/iana/errorcode"
	"github.com/jcmturner/gokrb5/v8/iana/etypeID"
	"github.com/jcmturner/gokrb5/v8/iana/keyusage"
	"github.com/jcmturner/gokrb5/v8/iana/msgtype"
	"github.com/jcmturner/gokrb5/v8/iana/patype"
	"github.com/jcmturner/gokrb5/v8/keytab"
	"github.com/jcmturner/gokrb5/v8/messages"
	"github.com/jcmturner/gokrb5/v8/spnego"
	"github.com/jcmturner/gokrb5/v8/types"
)

const (
	realm = "EXAMPLE.NET"
	aes   = etypeID.AES256_CTS_HMAC_SHA1_96
)

// A kdc is a key server with one user and one service. It does what RFC 4120
// asks of one for that: it has the user prove the password, and checks each
// ticket it is shown.
type kdc struct {
	user, password string
	keys           *keytab.Keytab // its own and the service's
	address        string
	logins         chan string // names of who logged in
}

// newKDC returns a running key server for a proxy on host.
func newKDC(t *testing.T, user, password, host string) *kdc {
	t.Helper()
	k := &kdc{user: user, password: password, keys: keytab.New(), logins: make(chan string, 16)}
	for principal, secret := range map[string]string{"krbtgt/" + realm: "of the server", "HTTP/" + host: "of the proxy"} {
		if err := k.keys.AddEntry(principal, realm, secret, time.Now(), 1, aes); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	k.address = l.Addr().String()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go k.serve(conn)
		}
	}()
	return k
}

// conf is the section of krb5.conf(5) that says where the server is.
func (k *kdc) conf() string {
	return fmt.Sprintf("[realms]\n%s = {\n kdc = %s\n}\n", realm, k.address)
}

// serve answers one request, with its length before it (RFC 4120, section 7.2.2).
func (k *kdc) serve(conn net.Conn) {
	defer conn.Close()
	var size uint32
	if binary.Read(conn, binary.BigEndian, &size) != nil || size > 1<<16 {
		return
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(conn, b); err != nil {
		return
	}
	answer := k.answer(b)
	_, _ = conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(answer))), answer...))
}

func (k *kdc) answer(b []byte) []byte {
	var login messages.ASReq
	if login.Unmarshal(b) == nil {
		return k.login(login)
	}
	var req messages.TGSReq
	if err := req.Unmarshal(b); err != nil {
		return k.refuse(types.PrincipalName{}, errorcode.KRB_ERR_GENERIC, err.Error(), nil)
	}
	return k.ticket(req)
}

func (k *kdc) refuse(service types.PrincipalName, code int32, why string, hint []byte) []byte {
	e := messages.NewKRBError(service, realm, code, why)
	e.EData = hint
	b, err := e.Marshal()
	if err != nil {
		panic(err)
	}
	return b
}

// login answers who wants to log in.
func (k *kdc) login(req messages.ASReq) []byte {
	body := req.ReqBody
	key, _, err := crypto.GetKeyFromPassword(k.password, body.CName, realm, aes, nil)
	if err != nil || body.CName.PrincipalNameString() != k.user {
		return k.refuse(body.SName, errorcode.KDC_ERR_C_PRINCIPAL_UNKNOWN, "unknown", nil)
	}
	proof := find(req.PAData, patype.PA_ENC_TIMESTAMP)
	if proof == nil {
		return k.refuse(body.SName, errorcode.KDC_ERR_PREAUTH_REQUIRED, "prove the password", preauth(k.user))
	}
	var sealed types.EncryptedData
	if sealed.Unmarshal(proof) != nil {
		return k.refuse(body.SName, errorcode.KRB_ERR_GENERIC, "not sealed", nil)
	}
	if _, err := crypto.DecryptEncPart(sealed, key, keyusage.AS_REQ_PA_ENC_TIMESTAMP); err != nil {
		return k.refuse(body.SName, errorcode.KDC_ERR_PREAUTH_FAILED, "wrong password", nil)
	}
	k.logins <- k.user
	fields := k.grant(body.CName, body, key, keyusage.AS_REP_ENCPART)
	fields.MsgType = msgtype.KRB_AS_REP
	return must((&messages.ASRep{KDCRepFields: fields}).Marshal())
}

// ticket answers who wants a ticket for a service and shows that it is logged in.
func (k *kdc) ticket(req messages.TGSReq) []byte {
	body := req.ReqBody
	var shown messages.APReq
	if err := shown.Unmarshal(find(req.PAData, patype.PA_TGS_REQ)); err != nil {
		return k.refuse(body.SName, errorcode.KRB_ERR_GENERIC, err.Error(), nil)
	}
	if ok, err := shown.Verify(k.keys, time.Minute, types.HostAddress{}, nil); !ok || err != nil {
		return k.refuse(body.SName, errorcode.KRB_AP_ERR_MODIFIED, "not logged in", nil)
	}
	if _, _, err := k.keys.GetEncryptionKey(body.SName, realm, 1, aes); err != nil {
		return k.refuse(body.SName, errorcode.KDC_ERR_S_PRINCIPAL_UNKNOWN, "no such service", nil)
	}
	in := shown.Ticket.DecryptedEncPart
	fields := k.grant(in.CName, body, in.Key, keyusage.TGS_REP_ENCPART_SESSION_KEY)
	fields.MsgType = msgtype.KRB_TGS_REP
	return must((&messages.TGSRep{KDCRepFields: fields}).Marshal())
}

// grant makes a ticket and seals what goes with it.
func (k *kdc) grant(client types.PrincipalName, body messages.KDCReqBody, key types.EncryptionKey, usage uint32) messages.KDCRepFields {
	now := time.Now().UTC().Truncate(time.Second)
	end := now.Add(time.Hour)
	ticket, session, err := messages.NewTicket(client, realm, body.SName, realm, types.NewKrbFlags(), k.keys, aes, 1, now, now, end, end)
	if err != nil {
		panic(err)
	}
	part := messages.EncKDCRepPart{
		Key: session, LastReqs: []messages.LastReq{{LRType: 0, LRValue: now}}, Nonce: body.Nonce, Flags: types.NewKrbFlags(),
		AuthTime: now, StartTime: now, EndTime: end, RenewTill: end, SRealm: realm, SName: body.SName,
	}
	sealed, err := crypto.GetEncryptedData(must(part.Marshal()), key, usage, 1)
	if err != nil {
		panic(err)
	}
	return messages.KDCRepFields{PVNO: 5, CRealm: realm, CName: client, Ticket: ticket, EncPart: sealed}
}

// preauth says how to prove a password (RFC 4120, section 5.2.7.5).
func preauth(user string) []byte {
	info := must(asn1.Marshal(types.ETypeInfo2{{EType: aes, Salt: realm + user}}))
	return must(asn1.Marshal(types.PADataSequence{{PADataType: patype.PA_ETYPE_INFO2, PADataValue: info}}))
}

func find(all types.PADataSequence, kind int32) []byte {
	for _, pa := range all {
		if pa.PADataType == kind {
			return pa.PADataValue
		}
	}
	return nil
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// takes reports whether a proxy with the service's key takes what a request
// says, which a library's other half checks: the ticket, the proof that whoever
// shows it may, and that it was not shown before.
func (k *kdc) takes(says string) bool {
	word, token, _ := strings.Cut(says, " ")
	b, err := base64.StdEncoding.DecodeString(token)
	if word != "Negotiate" || err != nil {
		return false
	}
	var t spnego.SPNEGOToken
	if t.Unmarshal(b) != nil {
		return false
	}
	ok, _, status := spnego.SPNEGOService(k.keys).AcceptSecContext(&t)
	return ok && status.Code == gssapi.StatusComplete
}
