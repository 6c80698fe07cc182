package daemon

import (
	"context"

	"github.com/incusos/incusos/internal/console"
	"github.com/incusos/incusos/internal/debug"
	"github.com/incusos/incusos/internal/network"
	"github.com/incusos/incusos/internal/sys"
)

// pages are what somebody at the machine can look at, who may have no other way
// to it.
func pages(m sys.Host, n *network.Network) []console.Page {
	log := debug.New(m)
	return []console.Page{
		{Key: 'l', Name: "log", End: true, Read: func(ctx context.Context) []string {
			lines, err := log.Recent(ctx)
			if err != nil {
				lines = []string{err.Error()}
			}
			return lines
		}},
		{Key: 'n', Name: "network", Read: n.Diagnose},
	}
}
