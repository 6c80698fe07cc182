package client

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/incusos/incusos/api"
)

const system = "/1.0/system"

// System returns the parts of the system, as paths.
func (c *Client) System(ctx context.Context) ([]string, error) { return get[[]string](ctx, c, system) }

// FallbackListener is the way to the API for when Incus cannot answer.
func (c *Client) FallbackListener() Resource[api.SystemFallbackListener, api.SystemFallbackListenerConfig] {
	return At[api.SystemFallbackListener, api.SystemFallbackListenerConfig](c, system+"/fallback-listener")
}

// Kernel is how the kernel is set.
func (c *Client) Kernel() Resource[api.SystemKernel, api.SystemKernelConfig] {
	return At[api.SystemKernel, api.SystemKernelConfig](c, system+"/kernel")
}

// Logging is where the log goes.
func (c *Client) Logging() Resource[api.SystemLogging, api.SystemLoggingConfig] {
	return At[api.SystemLogging, api.SystemLoggingConfig](c, system+"/logging")
}

// Network is the network's configuration and state.
func (c *Client) Network() Resource[api.Network, api.NetworkConfig] {
	return At[api.Network, api.NetworkConfig](c, system+"/network")
}

// Security is trust, keys and the state of both. Reading it is written down in
// the audit log.
func (c *Client) Security() Resource[api.SystemSecurity, api.SystemSecurityConfig] {
	return At[api.SystemSecurity, api.SystemSecurityConfig](c, system+"/security")
}

// Storage is drives and pools.
func (c *Client) Storage() Resource[api.SystemStorage, api.SystemStorageConfig] {
	return At[api.SystemStorage, api.SystemStorageConfig](c, system+"/storage")
}

// Provider is where updates come from.
func (c *Client) Provider() Resource[api.SystemProvider, api.SystemProviderConfig] {
	return At[api.SystemProvider, api.SystemProviderConfig](c, system+"/provider")
}

// Update is when updates are made.
func (c *Client) Update() Resource[api.SystemUpdate, api.SystemUpdateConfig] {
	return At[api.SystemUpdate, api.SystemUpdateConfig](c, system+"/update")
}

// Attestation returns what the TPM says of how the machine was started. Nonce is 32 to
// 64 hexadecimal digits that nobody can guess; credential is a challenge for the TPM,
// or "".
func (c *Client) Attestation(ctx context.Context, nonce, credential string) (api.Attestation, error) {
	query := url.Values{"nonce": {nonce}}
	if credential != "" {
		query.Set("credential", credential)
	}
	return fetch[api.Attestation](ctx, c, request{method: http.MethodGet, path: system + "/security/attestation", query: query})
}

// Resources returns the hardware, in the shape of Incus' own /1.0/resources.
func (c *Client) Resources(ctx context.Context) (json.RawMessage, error) {
	return get[json.RawMessage](ctx, c, system+"/resources")
}

// Reboot restarts the machine. It returns when the machine has accepted, which
// is before it acts.
func (c *Client) Reboot(ctx context.Context) error { return c.post(ctx, system+"/:reboot", nil) }

// Poweroff turns the machine off. It returns when the machine has accepted,
// which is before it acts.
func (c *Client) Poweroff(ctx context.Context) error { return c.post(ctx, system+"/:poweroff", nil) }

// Suspend suspends the machine to memory. It returns when the machine has
// accepted, which is before it acts.
func (c *Client) Suspend(ctx context.Context) error { return c.post(ctx, system+"/:suspend", nil) }

// Backup writes the machine's own configuration to w, as an archive. It holds
// keys. After an error w may have got part of it.
func (c *Client) Backup(ctx context.Context, w io.Writer) error {
	return c.stream(ctx, request{method: http.MethodPost, path: system + "/:backup"}, w)
}

// Restore puts back what Backup gave, and restarts the machine. What skip names
// stays as it is.
func (c *Client) Restore(ctx context.Context, archive io.Reader, skip ...string) error {
	query := make(url.Values)
	if len(skip) > 0 {
		query.Set("skip", strings.Join(skip, ","))
	}
	return c.do(ctx, request{method: http.MethodPost, path: system + "/:restore", query: query, upload: archive})
}

// FactoryReset makes the machine as it was first installed. What is on its
// system drive is lost.
func (c *Client) FactoryReset(ctx context.Context, reset api.SystemReset) error {
	return c.post(ctx, system+"/:factory-reset", reset)
}

// FlushDNS forgets the answers of name servers.
func (c *Client) FlushDNS(ctx context.Context) error {
	return c.post(ctx, system+"/network/:flush-dns", nil)
}

// KeysRetrieved says that the recovery keys were written down.
func (c *Client) KeysRetrieved(ctx context.Context) error {
	return c.post(ctx, system+"/security/:retrieved", nil)
}

// RebindTPM binds the disks to the TPM anew, after a recovery key was used. The PIN is
// "" for a machine that asks for none.
func (c *Client) RebindTPM(ctx context.Context, pin api.Secret) error {
	if pin == "" {
		return c.post(ctx, system+"/security/:tpm-rebind", nil)
	}
	return c.post(ctx, system+"/security/:tpm-rebind", api.SecurityPIN{PIN: pin})
}

// SetPIN has the machine ask for a PIN at each start.
func (c *Client) SetPIN(ctx context.Context, pin api.Secret) error {
	return c.post(ctx, system+"/security/:set-pin", api.SecurityPIN{PIN: pin})
}

// RemovePIN has the machine start without asking for a PIN.
func (c *Client) RemovePIN(ctx context.Context) error {
	return c.post(ctx, system+"/security/:remove-pin", nil)
}

// ForgiveUpdate lets a version be tried again that did not work.
func (c *Client) ForgiveUpdate(ctx context.Context, forgive api.UpdateForgive) error {
	return c.post(ctx, system+"/update/:forgive", forgive)
}

// PauseUpdates stops what is being fetched, until updates are resumed.
func (c *Client) PauseUpdates(ctx context.Context) error {
	return c.post(ctx, system+"/update/:pause", nil)
}

// ResumeUpdates goes on with updates.
func (c *Client) ResumeUpdates(ctx context.Context) error {
	return c.post(ctx, system+"/update/:resume", nil)
}

// RepairUpdate starts a task that mends what is damaged of the versions on the
// machine.
func (c *Client) RepairUpdate(ctx context.Context) error {
	return c.post(ctx, system+"/update/:repair", nil)
}

// RollBack goes back to the version before.
func (c *Client) RollBack(ctx context.Context, rollback api.UpdateRollback) error {
	return c.post(ctx, system+"/update/:rollback", rollback)
}

// CheckUpdates looks for updates now.
func (c *Client) CheckUpdates(ctx context.Context, check api.UpdateCheck) error {
	return c.post(ctx, system+"/update/:check", check)
}
