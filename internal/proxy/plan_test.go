package proxy

import (
	"testing"

	"github.com/incusos/incusos/api"
)

func TestPlan(t *testing.T) {
	corp := api.NetworkProxyServer{Host: "corp", Auth: "basic", Username: "node1", Password: secret}
	other := corp
	other.Password = "another"
	one := func(s api.NetworkProxyServer, rules ...api.NetworkProxyRule) api.NetworkProxy {
		return api.NetworkProxy{Servers: map[string]api.NetworkProxyServer{"corp": s}, Rules: rules}
	}
	for name, tt := range map[string]struct {
		from, to api.NetworkProxy
		want     string
	}{
		"nothing":          {one(corp), one(corp), ""},
		"a first proxy":    {api.NetworkProxy{}, one(corp), "use the proxy corp at corp:3128\nchoose the way to destinations by other rules\n"},
		"another password": {one(corp), one(other), "change how the proxy corp at corp:3128 is asked\n"},
		"another rule":     {one(corp), one(corp, rule("*.test", "corp")), "choose the way to destinations by other rules\n"},
		"the same rule":    {one(corp), one(corp, rule("*", "corp")), ""},
		"no proxy":         {one(corp), api.NetworkProxy{}, "forget the proxy corp\nchoose the way to destinations by other rules\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Plan(tt.from, tt.to).String(); got != tt.want {
				t.Errorf("Plan() = %q, want %q", got, tt.want)
			}
		})
	}
}
