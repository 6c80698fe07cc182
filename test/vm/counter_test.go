//go:build vm

package vm_test

import (
	"net/http"
	"sync/atomic"
)

// A counter counts the bytes of what a server sends.
type counter struct{ atomic.Int64 }

func (c *counter) count(w http.ResponseWriter) http.ResponseWriter { return counted{w, c} }

type counted struct {
	http.ResponseWriter
	c *counter
}

func (w counted) Write(b []byte) (int, error) {
	n, err := w.ResponseWriter.Write(b)
	w.c.Add(int64(n))
	return n, err
}
