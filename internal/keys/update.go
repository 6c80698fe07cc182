package keys

import (
	"crypto"

	"github.com/incusos/incusos/internal/repo"
)

// UpdateRoot returns the root of the update repository that begins with the update
// key of r: images carry it, and the repository starts from it. It is the same each
// time, since nothing in it is new: it expires when the certificates of r do.
func (r *Root) UpdateRoot() ([]byte, error) {
	key, err := r.Update.Signer()
	if err != nil {
		return nil, err
	}
	roles := make(map[string]repo.RoleKeys)
	for _, role := range repo.Roles() {
		roles[role] = repo.RoleKeys{Threshold: 1, Keys: []crypto.PublicKey{key.Public()}}
	}
	return repo.FirstRoot(roles, []crypto.Signer{key}, r.PK.Cert.NotAfter)
}
