package osctl

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/incusos/incusos/api"
)

// story returns what a machine says of its tasks, one answer after another.
func story(answers ...[]api.Task) func(context.Context) ([]api.Task, error) {
	i := -1
	return func(context.Context) ([]api.Task, error) {
		i = min(i+1, len(answers)-1)
		return answers[i], nil
	}
}

func task(id string, status api.TaskStatus, phase string, done uint64) api.Task {
	return api.Task{ID: id, Description: "task " + id, Status: status, Phase: phase, Done: done, Total: 4}
}

func TestWatchPrintsWhatIsNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failed := task("2", api.TaskFailed, "", 0)
		failed.Error = "no image"
		old := task("0", api.TaskFailed, "", 0)
		var b bytes.Buffer
		w := &watcher{out: &b, list: story(
			[]api.Task{task("1", api.TaskRunning, "reading", 1), old},
			[]api.Task{task("2", api.TaskRunning, "fetching", 0), task("1", api.TaskRunning, "reading", 2), old},
			[]api.Task{failed, task("1", api.TaskDone, "", 4), old},
		)}
		w.pick, w.show = running, w.print
		began := time.Now()
		err := w.run(t.Context())
		const want = "task 1: reading\ntask 2: fetching\ntask 1: done\ntask 2: failed: no image\n"
		if b.String() != want || err == nil || err.Error() != "task 2: no image" {
			t.Errorf("run() = %v, printed:\n%swant:\n%s", err, b.String(), want)
		}
		if time.Since(began) != 2*often {
			t.Errorf("it took %v", time.Since(began))
		}
	})
}

func TestWatchDraws(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		w := &watcher{out: &b, list: story(
			[]api.Task{task("1", api.TaskRunning, "reading all of it, slowly", 1)},
			[]api.Task{task("1", api.TaskDone, "", 4)},
		)}
		w.pick, w.show = running, w.draw
		if err := w.run(t.Context()); err != nil {
			t.Fatal(err)
		}
		const want = "\r\x1b[Ktask 1                       [######..................]  25% reading all of it…\n" +
			"\x1b[1A\r\x1b[Ktask 1                       [########################] 100% done\n"
		if b.String() != want {
			t.Errorf("drew\n%q\nwant\n%q", b.String(), want)
		}
	})
}

func TestWatchEndsWhenToldTo(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := &watcher{list: story([]api.Task{task("1", api.TaskRunning, "", 0)}), pick: running, show: func([]api.Task) {}}
	if err := w.run(ctx); err == nil {
		t.Error("it goes on")
	}
}

func TestWatchingOneThatHasEnded(t *testing.T) {
	w := &watcher{pick: func(t api.Task) bool { return t.ID == "1" }, list: story([]api.Task{task("1", api.TaskCancelled, "", 0)}), show: func([]api.Task) {}}
	if err := w.run(t.Context()); err == nil || err.Error() != "task 1: cancelled" {
		t.Errorf("run() = %v", err)
	}
}

func FuzzLogLine(f *testing.F) {
	f.Add([]byte(`{"__REALTIME_TIMESTAMP":"1700000000000000","MESSAGE":[1,"x",300]}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, entry []byte) {
		if line := logLine(entry); bytes.ContainsAny([]byte(line), "\x1b\n\r") {
			t.Errorf("logLine(%q) = %q", entry, line)
		}
	})
}
