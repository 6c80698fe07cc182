package api

// A StorageDriveWipe is the request to wipe or to encrypt a drive.
type StorageDriveWipe struct {
	ID         string `json:"id"`                    // as drives have it, such as "/dev/disk/by-id/..."
	SecureWipe bool   `json:"secure_wipe,omitempty"` // overwrite all of it, which takes hours
}

// A StorageDriveImport is the request to open a drive that was encrypted
// elsewhere.
type StorageDriveImport struct {
	ID  string `json:"id"`  // as drives have it
	Key Secret `json:"key"` // 32 bytes in base64
}

// A StoragePoolImport is the request to import a pool that was made elsewhere.
type StoragePoolImport struct {
	Name          string `json:"name"`
	Type          string `json:"type"`                     // "zfs"
	EncryptionKey Secret `json:"encryption_key,omitempty"` // 32 bytes in base64; "" if it is not encrypted
}

// A StoragePoolName is a request about one pool.
type StoragePoolName struct {
	Name string `json:"name"`
}

// A StorageVolumeCreate is the request to make a dataset in a pool.
type StorageVolumeCreate struct {
	Pool  string `json:"pool"`
	Name  string `json:"name"`
	Quota uint64 `json:"quota,omitempty"` // bytes; 0 is no limit
	Use   string `json:"use,omitempty"`   // "incus" or "linstor"
}

// A StorageVolumeDelete is the request to destroy a dataset of a pool.
type StorageVolumeDelete struct {
	Pool  string `json:"pool"`
	Name  string `json:"name"`
	Force bool   `json:"force,omitempty"` // even if it is in use
}

// An UpdateCheck is the request to look for updates now.
type UpdateCheck struct {
	OSOnly bool `json:"os_only,omitempty"` // leave the applications alone
}
