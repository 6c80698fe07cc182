package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// A measure is how a route was answered.
type measure struct {
	times    []time.Duration // sorted
	took     time.Duration   // all of it
	status   int             // of the last answer
	bytes    int64           // of the last answer
	programs int             // that were run meanwhile
	cpu      time.Duration   // that the daemon took for one, on the whole
}

// ask asks a route from several clients at once.
func (d *running) ask(ctx context.Context, route string, o options) (measure, error) {
	before, err := d.programs()
	if err != nil {
		return measure{}, err
	}
	worked, err := d.cpu()
	if err != nil {
		return measure{}, err
	}
	began := time.Now()
	parts := make([]measure, o.clients)
	errs := make([]error, o.clients)
	var wg sync.WaitGroup
	for i := range parts {
		wg.Go(func() { parts[i], errs[i] = d.askAlone(ctx, route, o.requests/o.clients, began.Add(o.longest)) })
	}
	wg.Wait()
	m := parts[0]
	m.took = time.Since(began)
	for i, p := range parts {
		if errs[i] != nil {
			return m, errs[i]
		}
		if i > 0 {
			m.times = append(m.times, p.times...)
		}
	}
	slices.Sort(m.times)
	after, err := d.programs()
	if err != nil {
		return m, err
	}
	m.programs = after - before
	now, err := d.cpu()
	m.cpu = (now - worked) / time.Duration(max(1, len(m.times)))
	return m, err
}

// askAlone asks n times, or until the deadline, over one connection. A first
// request that opens it does not count.
func (d *running) askAlone(ctx context.Context, route string, n int, deadline time.Time) (m measure, err error) {
	t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", d.socket)
	}}
	defer t.CloseIdleConnections()
	c := &http.Client{Transport: t}
	for i := 0; i <= n && time.Now().Before(deadline); i++ {
		began := time.Now()
		if m.status, m.bytes, err = get(ctx, c, route); err != nil {
			return m, err
		}
		if i > 0 {
			m.times = append(m.times, time.Since(began))
		}
	}
	return m, nil
}

func get(ctx context.Context, c *http.Client, route string) (status int, n int64, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://incus-os"+route, nil)
	if err != nil {
		return 0, 0, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	n, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, n, err
}

// percentile returns the time within which p per cent of the requests were
// answered.
func (m measure) percentile(p int) time.Duration {
	if len(m.times) == 0 {
		return 0
	}
	return m.times[max(0, len(m.times)*p/100-1)].Round(time.Microsecond)
}

// rate is requests in a second.
func (m measure) rate() float64 { return float64(len(m.times)) / m.took.Seconds() }
