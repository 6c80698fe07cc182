package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/change"
	"github.com/incusos/incusos/internal/rest"
	"github.com/incusos/incusos/internal/seal"
	"github.com/incusos/incusos/internal/sys"
)

// securitySaved is what is saved about security; the recovery keys are in files of
// their own, since the initrd makes the first.
type securitySaved struct {
	RecoveryKeys  bool     `json:"recovery_keys_retrieved"`
	CustomCACerts []string `json:"custom_ca_certs,omitempty"`
}

func (s securitySaved) warnings() []string {
	if s.RecoveryKeys {
		return nil
	}
	return []string{"nobody has fetched the recovery keys; see `incus admin os system security show`"}
}

// A securityArea is security as a resource and an area.
type securityArea struct {
	*managed[api.SystemSecurity, api.SystemSecurityConfig]
	seal *seal.Seal
	doc  document[securitySaved]
}

func wireSecurity(m sys.Host, doc document[securitySaved], gate *change.Gate) securityArea {
	s := seal.New(m, func() bool { return doc.get().RecoveryKeys })
	saved := securityDocument{doc, s}
	observe := func(_ context.Context, config api.SystemSecurityConfig) (api.SystemSecurity, error) {
		state, err := s.State()
		return api.SystemSecurity{Config: config, State: state}, err
	}
	manager := change.New("system/security", saved, s, gate)
	return securityArea{&managed[api.SystemSecurity, api.SystemSecurityConfig]{manager, document[api.SystemSecurityConfig]{err: doc.err}, observe, s.Name()}, s, doc}
}

// Reconcile implements Area. How the machine was started is complained about at the
// end: what is wanted is so by then.
func (a securityArea) Reconcile(ctx context.Context) error {
	return errors.Join(a.managed.Reconcile(ctx), a.seal.Reconcile(ctx))
}

// Config implements rest.Resource.
func (a securityArea) Config() (api.SystemSecurityConfig, error) {
	_, err := a.seal.SavedKeys()
	config, docErr := a.managed.Config()
	return config, errors.Join(docErr, err)
}

// A securityDocument is where the configuration of security is saved: in a document,
// and the keys with what they open.
type securityDocument struct {
	document[securitySaved]
	seal *seal.Seal
}

// Get implements change.Document. Keys that cannot be read are none here, which is no
// configuration that anything is brought to: Apply fails of the same.
func (d securityDocument) Get() api.SystemSecurityConfig {
	keys, err := d.seal.SavedKeys()
	if err != nil {
		slog.Error("Cannot read the recovery keys", "err", err)
	}
	return api.SystemSecurityConfig{CustomCACerts: d.get().CustomCACerts, EncryptionRecoveryKeys: keys}
}

// Set implements change.Document. The keys come last: those that were asked for open
// the disk by then, and the old ones that are still saved are given back after a cut.
func (d securityDocument) Set(config api.SystemSecurityConfig) error {
	saved := d.get()
	saved.CustomCACerts = config.CustomCACerts
	if err := d.saved.Set(saved); err != nil {
		return err
	}
	return d.seal.SaveKeys(config.EncryptionRecoveryKeys)
}

// seededSecurity is what a seed says of security, as it is saved.
func seededSecurity(s *api.SeedSecurity) *securitySaved {
	if s == nil {
		return nil
	}
	return &securitySaved{CustomCACerts: s.CustomCACerts}
}

// actions are what can be done about security. When somebody says that the keys were
// written down, acknowledged is told.
func (a securityArea) actions(acknowledged func()) map[string]rest.Action {
	const dir = "/1.0/system/security"
	return map[string]rest.Action{
		dir + "/:retrieved": func(context.Context, []byte) error {
			err := a.save(func(s *securitySaved) { s.RecoveryKeys = true })
			if err == nil {
				acknowledged()
			}
			return err
		},
		"/1.0/debug/secureboot/:update": a.seal.UpdateDatabases,
		dir + "/:remove-pin":            func(ctx context.Context, _ []byte) error { return a.seal.RemovePIN(ctx) },
		dir + "/:set-pin":               withPIN(a.seal.SetPIN),
		dir + "/:tpm-rebind":            withPIN(a.seal.Rebind),
	}
}

// attestations answers with what the TPM says, and the version that runs.
func attestations(s *seal.Seal, environment func(context.Context) (api.Environment, error)) func(context.Context, string, string) (api.Attestation, error) {
	return func(ctx context.Context, nonce, credential string) (api.Attestation, error) {
		a, err := s.Attest(ctx, nonce, credential)
		if err != nil {
			return a, err
		}
		e, err := environment(ctx)
		a.Version = e.OSVersion
		return a, err
	}
}

// withPIN returns an action that takes a PIN, or nothing.
func withPIN(act func(ctx context.Context, pin string) error) rest.Action {
	return func(ctx context.Context, body []byte) error {
		var pin api.SecurityPIN
		if len(bytes.TrimSpace(body)) > 0 {
			d := json.NewDecoder(bytes.NewReader(body))
			d.DisallowUnknownFields()
			if err := d.Decode(&pin); err != nil {
				return api.Errorf(api.Invalid, "the body is no document with a pin") // and is not repeated
			}
		}
		return act(ctx, string(pin.PIN))
	}
}

func (a securityArea) save(change func(*securitySaved)) error {
	if a.doc.err != nil {
		return a.doc.err
	}
	saved := a.doc.saved.Get()
	change(&saved)
	return a.doc.saved.Set(saved)
}
