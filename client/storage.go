package client

import (
	"context"

	"github.com/incusos/incusos/api"
)

const storage = system + "/storage"

// CleanupRoot makes room on the root file system.
func (c *Client) CleanupRoot(ctx context.Context) error {
	return c.post(ctx, storage+"/:cleanup-root", nil)
}

// RescanSCSI looks for new disks on all SCSI hosts.
func (c *Client) RescanSCSI(ctx context.Context) error {
	return c.post(ctx, storage+"/:rescan-scsi", nil)
}

// WipeDrive wipes a drive. What it held is lost.
func (c *Client) WipeDrive(ctx context.Context, drive api.StorageDriveWipe) error {
	return c.post(ctx, storage+"/:wipe-drive", drive)
}

// EncryptDrive encrypts a drive. What it held is lost.
func (c *Client) EncryptDrive(ctx context.Context, drive api.StorageDriveWipe) error {
	return c.post(ctx, storage+"/:encrypt-drive", drive)
}

// ImportDrive opens a drive that was encrypted elsewhere.
func (c *Client) ImportDrive(ctx context.Context, drive api.StorageDriveImport) error {
	return c.post(ctx, storage+"/:import-encrypted-drive", drive)
}

// ImportPool imports a pool that was made elsewhere.
func (c *Client) ImportPool(ctx context.Context, pool api.StoragePoolImport) error {
	return c.post(ctx, storage+"/:import-pool", pool)
}

// DeletePool destroys a pool and wipes its drives.
func (c *Client) DeletePool(ctx context.Context, name string) error {
	return c.post(ctx, storage+"/:delete-pool", api.StoragePoolName{Name: name})
}

// ScrubPool checks the data of a pool against its checksums, as a task.
func (c *Client) ScrubPool(ctx context.Context, name string) error {
	return c.post(ctx, storage+"/:scrub-pool", api.StoragePoolName{Name: name})
}

// TrimPool tells the drives of a pool which blocks are free, as a task.
func (c *Client) TrimPool(ctx context.Context, name string) error {
	return c.post(ctx, storage+"/:trim-pool", api.StoragePoolName{Name: name})
}

// CreateVolume makes a dataset in a pool.
func (c *Client) CreateVolume(ctx context.Context, volume api.StorageVolumeCreate) error {
	return c.post(ctx, storage+"/:create-volume", volume)
}

// DeleteVolume destroys a dataset of a pool.
func (c *Client) DeleteVolume(ctx context.Context, volume api.StorageVolumeDelete) error {
	return c.post(ctx, storage+"/:delete-volume", volume)
}
