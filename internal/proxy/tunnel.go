package proxy

import (
	"context"
	"io"
	"net"
	"sync"
	"time"
)

// join carries bytes both ways until both sides have said all they had to, until
// neither has said anything for so long, or until ctx ends. It closes both.
func join(ctx context.Context, a, b net.Conn, silence time.Duration) {
	var once sync.Once
	end := func() {
		once.Do(func() {
			_ = a.Close() // they are of no use any more
			_ = b.Close()
		})
	}
	defer end()
	defer context.AfterFunc(ctx, end)()
	timer := time.AfterFunc(silence, end)
	defer timer.Stop()
	var both sync.WaitGroup
	for _, dir := range [][2]net.Conn{{a, b}, {b, a}} {
		both.Go(func() {
			_, err := io.Copy(heard{dir[1], timer, silence}, dir[0])
			if err != nil || closeWrite(dir[1]) != nil {
				end()
			}
		})
	}
	both.Wait()
}

// A heard connection starts a clock anew whenever something goes to it.
type heard struct {
	to      io.Writer
	timer   *time.Timer
	silence time.Duration
}

func (h heard) Write(b []byte) (int, error) {
	h.timer.Reset(h.silence)
	return h.to.Write(b)
}

// closeWrite tells the other side that nothing more comes, where that can be
// told without ending the connection.
func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}
