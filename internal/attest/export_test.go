package attest

// For the fuzz targets: what reads bytes of whoever sent them.
var (
	ParseQuote      = func(b []byte) error { _, err := parseQuote(b); return err }
	ReadKey         = func(b []byte) error { _, err := readKey("some", b); return err }
	SplitCredential = splitCredential
	JoinCredential  = joinCredential
)
