package repo

import (
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// A Clock is what a machine knows about the time. A clock that is wrong must
// neither keep a machine from updates for ever nor make it take old ones:
//
//   - It is never earlier than what is known for certain: when the image was made,
//     and when the newest metadata that the machine has verified was signed. So a
//     machine whose battery is empty does not take what expired before that.
//   - A clock that a time server has not set is not believed if it makes the
//     repository look expired. The metadata is then judged by what is known for
//     certain, and accepted as Unproven: it is not older than what the machine had,
//     but somebody may be holding back newer ones.
//   - A clock that was set by a time server is believed. Expired is expired.
type Clock struct {
	Now          time.Time // what the machine's clock says
	Synchronized bool      // a time server has set it
	NotBefore    time.Time // when the running image was made
}

// times returns the time to judge by, and if there is one, a second for when that
// says expired. Signed is when the newest metadata was that the machine has.
func (c Clock) times(signed time.Time) (first, second time.Time) {
	certain := c.NotBefore
	if signed.After(certain) {
		certain = signed
	}
	if c.Now.Before(certain) {
		return certain, time.Time{}
	}
	if !c.Synchronized {
		second = certain
	}
	return c.Now, second
}

// signedField says in a timestamp when it was signed (RFC 3339). TUF has only the
// time of expiry, and lets anybody add fields.
const signedField = "signed"

// signedAt returns when the timestamp was signed that the machine has; zero if that
// is not known, or if the keys have changed since: it may be a thief's, who wants
// all that is signed later to look old.
func (c *client) signedAt() time.Time {
	if c.trusted.Timestamp == nil {
		return time.Time{}
	}
	m, err := metadata.Timestamp().FromBytes(c.trusted.Timestamp)
	if err != nil || c.tm.Root.VerifyDelegate(metadata.TIMESTAMP, m) != nil {
		return time.Time{}
	}
	return signedAt(m)
}

func signedAt(m *metadata.Metadata[metadata.TimestampType]) time.Time {
	s, _ := m.Signed.UnrecognizedFields[signedField].(string)
	at, err := time.Parse(time.RFC3339, s)
	if err != nil || at.After(m.Signed.Expires) {
		return time.Time{}
	}
	return at
}
