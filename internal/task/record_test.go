package task

import "testing"

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"schema":1,"id":"7","kind":"storage.scrub","status":"running","arg":{"pool":"local"}}`))
	f.Add([]byte(`{"id":"7","status":"dancing"}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		j, err := parse("7", b)
		if (j == nil) != (err != nil) {
			t.Errorf("parse() = %v, %v", j, err)
		}
		if j != nil && j.record.number() != 7 {
			t.Errorf("its number is %d, want that of its file", j.record.number())
		}
	})
}
