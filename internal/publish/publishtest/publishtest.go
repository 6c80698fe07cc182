// Package publishtest makes update repositories for tests. What is in them is package
// publish's doing, beside which it lies.
package publishtest

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"path/filepath"
	"testing"

	"github.com/incusos/incusos/internal/publish"
	"github.com/incusos/incusos/internal/repo"
)

// New makes an empty repository in a directory of the test, with one key for all roles.
func New(t *testing.T) (dir string, with publish.Signing) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	roles := make(map[string]repo.RoleKeys)
	for _, role := range repo.Roles() {
		roles[role] = repo.RoleKeys{Threshold: 1, Keys: []crypto.PublicKey{key.Public()}}
	}
	dir = filepath.Join(t.TempDir(), "updates")
	with = publish.Signing{Keys: []crypto.Signer{key}, Validity: repo.DefaultValidity()}
	if err := publish.Init(dir, nil, roles, with); err != nil {
		t.Fatal(err)
	}
	return dir, with
}
