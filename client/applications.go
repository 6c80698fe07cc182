package client

import (
	"context"
	"encoding/json"
	"io"
	"net/http"

	"github.com/incusos/incusos/api"
)

const (
	applications = "/1.0/applications"
	services     = "/1.0/services"
)

// Applications returns what is installed, as paths.
func (c *Client) Applications(ctx context.Context) ([]string, error) {
	return get[[]string](ctx, c, applications)
}

// Application is one application.
func (c *Client) Application(name string) Resource[api.Application, api.ApplicationConfig] {
	return At[api.Application, api.ApplicationConfig](c, at(applications, name))
}

// AddApplication installs an application. The machine goes on with it, as a
// task, after this has returned.
func (c *Client) AddApplication(ctx context.Context, name string) error {
	return c.post(ctx, applications, api.ApplicationAdd{Name: name})
}

// RemoveApplication stops an application and removes it with what it keeps.
func (c *Client) RemoveApplication(ctx context.Context, name string) error {
	return c.post(ctx, at(applications, name, ":remove"), nil)
}

// RestartApplication restarts an application.
func (c *Client) RestartApplication(ctx context.Context, name string) error {
	return c.post(ctx, at(applications, name, ":restart"), nil)
}

// ResetApplication makes an application as it was first installed. What it kept
// is lost.
func (c *Client) ResetApplication(ctx context.Context, name string) error {
	return c.post(ctx, at(applications, name, ":factory-reset"), nil)
}

// CheckApplication looks for a newer version of an application.
func (c *Client) CheckApplication(ctx context.Context, name string) error {
	return c.post(ctx, at(applications, name, ":check-update"), nil)
}

// SwitchApplication runs another version that is stored; "" is the one before.
func (c *Client) SwitchApplication(ctx context.Context, name, version string) error {
	return c.post(ctx, at(applications, name, ":switch-version"), api.ApplicationSwitch{Version: version})
}

// ActOnApplication does what only this application can.
func (c *Client) ActOnApplication(ctx context.Context, name string, action api.ApplicationAction) error {
	return c.post(ctx, at(applications, name, ":action"), action)
}

// DebugApplication writes what an application has to say about itself to w.
func (c *Client) DebugApplication(ctx context.Context, name string, action api.ApplicationAction, w io.Writer) error {
	return c.stream(ctx, request{method: http.MethodPost, path: at(applications, name, ":debug"), body: action}, w)
}

// BackupApplication writes everything an application keeps to w, as an archive.
// It holds secrets. After an error w may have got part of it.
func (c *Client) BackupApplication(ctx context.Context, name string, b api.ApplicationBackup, w io.Writer) error {
	return c.stream(ctx, request{method: http.MethodPost, path: at(applications, name, ":backup"), body: b}, w)
}

// RestoreApplication puts back what BackupApplication gave.
func (c *Client) RestoreApplication(ctx context.Context, name string, archive io.Reader) error {
	return c.do(ctx, request{method: http.MethodPost, path: at(applications, name, ":restore"), upload: archive})
}

// Services returns the services that can be configured, as paths.
func (c *Client) Services(ctx context.Context) ([]string, error) {
	return get[[]string](ctx, c, services)
}

// Service is one service; the form of its document depends on which one it is.
func (c *Client) Service(name string) Resource[json.RawMessage, json.RawMessage] {
	return At[json.RawMessage, json.RawMessage](c, at(services, name))
}

// ResetService stops a service, has it forget what it keeps, and starts it.
func (c *Client) ResetService(ctx context.Context, name string) error {
	return c.post(ctx, at(services, name, ":reset"), nil)
}
