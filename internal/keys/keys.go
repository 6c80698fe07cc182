// Package keys makes and reads trust roots: all the keys that one family of
// images, and the machines that run it, are bound to.
//
// A trust root is a directory with these files, which tools of the build read
// under these names:
//
//	PK   .key .crt .auth   owns the machine's Secure Boot settings
//	KEK  .key .crt .auth   signs changes to db and dbx
//	db   .key .crt .auth   signs boot loader, kernels, modules and verity hashes
//	pcr  .key .crt         signs the values of PCR 11 that unlock the disk
//	support .key .crt      signs scripts that look for faults on a machine
//	update .key .pub       signs the metadata of the update repository (Ed25519)
//	guid                   owner of the entries in the signature lists
//
// Keys are PEM in PKCS #8, certificates PEM, the .auth files what systemd-boot
// enrols from loader/keys/auto. The support pair may be missing: roots made before
// there was one lack it, and images built without it run no scripts.
//
// Package uefi knows the formats, package repo that of the root of an update
// repository; the programs that sign with the keys (mkosi, package publish) get their
// paths from Load.
package keys

import (
	"crypto/ed25519"
	"crypto/x509"
	"strings"

	"github.com/incusos/incusos/internal/uefi"
)

// A Root is a trust root on disk.
type Root struct {
	Dir  string
	GUID uefi.GUID // owner of the entries in the signature lists

	PK, KEK, DB, PCR Pair
	Support          *Pair    // nil: none
	Auth             []string // paths of PK.auth, KEK.auth and db.auth
	Update           UpdateKey
}

// A Pair is an RSA key in a file and the certificate for it.
type Pair struct {
	Name     string // "PK", "KEK", "db", "pcr" or "support"
	KeyFile  string
	CertFile string
	Cert     *x509.Certificate
}

// An UpdateKey is the key of the update repository.
type UpdateKey struct {
	KeyFile    string
	PublicFile string
	Public     ed25519.PublicKey
}

// Pairs returns the RSA keys of r.
func (r *Root) Pairs() []Pair {
	pairs := []Pair{r.PK, r.KEK, r.DB, r.PCR}
	if r.Support != nil {
		pairs = append(pairs, *r.Support)
	}
	return pairs
}

// Files of a trust root that are not made of a name and an ending.
const (
	support       = "support"
	guidFile      = "guid"
	updateKeyFile = "update.key"
	updatePubFile = "update.pub"
)

// pairNames are the names of the RSA keys, authNames those of the Secure Boot
// variables among them. The last pair may be missing.
func pairNames() []string { return []string{"PK", "KEK", "db", "pcr", support} }
func authNames() []string { return []string{"PK", "KEK", "db"} }

// secret reports whether the file of a trust root must stay with its owner.
func secret(name string) bool { return strings.HasSuffix(name, ".key") }

// fileNames lists the files of a trust root.
func fileNames() []string {
	var names []string
	for _, n := range pairNames() {
		names = append(names, n+".key", n+".crt")
	}
	for _, n := range authNames() {
		names = append(names, n+".auth")
	}
	return append(names, updateKeyFile, updatePubFile, guidFile)
}
