package daemon

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/rest"
	"github.com/incusos/incusos/internal/storage"
	"github.com/incusos/incusos/internal/task"
)

func storageResource(doc document[api.SystemStorageConfig], s *storage.Storage) rest.Resource[api.SystemStorage, api.SystemStorageConfig] {
	return fixed[api.SystemStorage, api.SystemStorageConfig]{
		"storage",
		func(ctx context.Context) (api.SystemStorage, error) {
			state, err := s.State(ctx)
			config := doc.get()
			config.Pools = state.Pools // where clients look for them
			return api.SystemStorage{Config: config, State: state}, errors.Join(doc.err, err)
		},
		func() (api.SystemStorageConfig, error) { return doc.get(), doc.err },
	}
}

// What is done to drives as a task.
const (
	encryptTask = "storage.encrypt"
	wipeTask    = "storage.wipe"
)

// driveKinds are the tasks of drives. One that was cut is begun again: half wiped is
// not wiped. Encrypting does not stop half way, wiping leaves a drive to wipe again.
func driveKinds(s *storage.Storage) []task.Kind {
	kind := func(name string, do func(context.Context, api.StorageDriveWipe, storage.Meter) error) task.Kind {
		return task.Kind{
			Name: name, Resume: true, Cancel: true,
			Key: func(arg json.RawMessage) string {
				var w api.StorageDriveWipe
				_ = json.Unmarshal(arg, &w) // Run says what is wrong
				return "drive " + w.ID
			},
			Run: func(ctx context.Context, arg json.RawMessage, p *task.Progress) error {
				var w api.StorageDriveWipe
				if err := json.Unmarshal(arg, &w); err != nil {
					return err
				}
				return do(ctx, w, p)
			},
		}
	}
	return []task.Kind{kind(encryptTask, s.Encrypt), kind(wipeTask, s.Wipe)}
}

// driveActions are what can be done to drives.
func driveActions(s *storage.Storage, tasks *task.Manager) map[string]rest.Action {
	const dir = "/1.0/system/storage"
	asTask := func(kind, does string, can func(context.Context, api.StorageDriveWipe) error) rest.Action {
		return func(ctx context.Context, body []byte) error {
			var w api.StorageDriveWipe
			if err := rest.Decode(body, &w); err != nil {
				return err
			}
			if err := can(ctx, w); err != nil {
				return err
			}
			t, err := tasks.Start(kind, does+" "+w.ID, w)
			if err != nil || w.SecureWipe {
				return err // of what takes hours, the task tells
			}
			end, err := tasks.Wait(ctx, t.ID)
			if err == nil && end.Status != api.TaskDone {
				err = errors.New(end.Error)
			}
			return err
		}
	}
	return map[string]rest.Action{
		dir + "/:encrypt-drive": asTask(encryptTask, "encrypting the drive", s.CanEncrypt),
		dir + "/:wipe-drive":    asTask(wipeTask, "wiping the drive", s.CanWipe),
		dir + "/:import-encrypted-drive": func(ctx context.Context, body []byte) error {
			var i api.StorageDriveImport
			if err := rest.Decode(body, &i); err != nil {
				return err
			}
			return s.Import(ctx, i)
		},
	}
}
