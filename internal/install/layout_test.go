package install

import (
	"io"
	"testing"
)

func TestScript(t *testing.T) {
	got, err := io.ReadAll(script(source{
		sig:    part{Type: "SIG", UUID: "U1", Name: "IncusOS_1_verity_sig", Size: 1},
		verity: part{Type: "VERITY", UUID: "U2", Name: "IncusOS_1_verity", Attrs: "GUID:60,63"},
		usr:    part{Type: "USR", UUID: "U3", Name: "IncusOS_1", Attrs: "GUID:60"},
	}))
	want := `label: gpt
size=524288KiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name="incusos-incomplete"
size=524288KiB, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name="seed-data"
size=16KiB, type=SIG, name="IncusOS_1_verity_sig", uuid=U1
size=16384KiB, type=VERITY, name="IncusOS_1_verity", uuid=U2, attrs="GUID:60,63"
size=1048576KiB, type=USR, name="IncusOS_1", uuid=U3, attrs="GUID:60"
size=16KiB, type=SIG, name="_empty"
size=16384KiB, type=VERITY, name="_empty", attrs="GUID:63"
size=1048576KiB, type=USR, name="_empty", attrs="GUID:63"
`
	if string(got) != want || err != nil {
		t.Errorf("script() = %s, %v; want %s", got, err, want)
	}
}
