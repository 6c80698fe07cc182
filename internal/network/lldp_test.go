package network

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/incusos/incusos/api"
)

const heard = `{"parameters":{"Neighbors":[{"InterfaceIndex":2,"InterfaceName":"_p020000000001","Neighbors":[
	{"ChassisID":"02:00:00:00:00:77","RawChassisID":[4],"PortID":"swp1","PortDescription":"rack 7","SystemName":"switch","EnabledCapabilities":4}]}]}}`

func TestNeighbours(t *testing.T) {
	got, err := parseLLDP([]byte(heard))
	want := map[string][]api.InterfaceLLDP{"_p020000000001": {{ChassisID: "02:00:00:00:00:77", Name: "switch", PortID: "swp1", Port: "rack 7"}}}
	if err != nil || !cmp.Equal(got, want) {
		t.Errorf("parseLLDP() = %v, %v", got, err)
	}
	if _, err := parseLLDP([]byte(`{"error":"org.varlink.service.MethodNotFound"}`)); err == nil {
		t.Error("a refusal was taken for silence")
	}
}

func FuzzParseLLDP(f *testing.F) {
	f.Add([]byte(heard))
	f.Add([]byte(`{"error":"x"}`))
	f.Add([]byte(`{"parameters":{"Neighbors":[{"Neighbors":null}]}}`))
	f.Fuzz(func(t *testing.T, reply []byte) {
		heard, err := parseLLDP(reply)
		if err != nil && heard != nil {
			t.Errorf("%q: both neighbours and %v", reply, err)
		}
	})
}
