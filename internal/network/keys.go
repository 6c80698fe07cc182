package network

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/incusos/incusos/api"
)

// keyFile returns where the private key of a tunnel is that has none in the
// configuration. A backup takes files of this form along.
func keyFile(name string) string { return "/var/lib/incus-os/wireguard." + name + ".key" }

// keys returns the private keys of tunnels that cfg leaves to the machine. New ones
// are saved if keep is set, and differ every time otherwise.
func (n *Network) keys(cfg api.NetworkConfig, keep bool) (map[string]api.Secret, error) {
	keys := make(map[string]api.Secret)
	for _, w := range cfg.Wireguard {
		if w.PrivateKey != "" {
			continue
		}
		key, err := n.key(w.Name, keep)
		if err != nil {
			return nil, fmt.Errorf("key of tunnel %s: %w", w.Name, err)
		}
		keys[w.Name] = key
	}
	return keys, nil
}

func (n *Network) key(name string, keep bool) (api.Secret, error) {
	file := keyFile(name)
	b, err := n.host.Files.ReadFile(file)
	if err == nil {
		return api.Secret(b), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	key, err := newKey()
	if err != nil || !keep {
		return key, err
	}
	if err := n.host.Files.MkdirAll(path.Dir(file), 0o700); err != nil {
		return "", err
	}
	return key, n.host.Files.WriteFile(file, []byte(key), 0o600)
}

// newKey makes a private key as `wg genkey` does.
func newKey() (api.Secret, error) {
	var b [32]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	b[0] &= 248 // RFC 7748, section 5
	b[31] = b[31]&127 | 64
	if _, err := ecdh.X25519().NewPrivateKey(b[:]); err != nil {
		return "", err
	}
	return api.Secret(base64.StdEncoding.EncodeToString(b[:])), nil
}
