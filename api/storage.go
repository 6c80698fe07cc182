package api

import (
	"strconv"
	"strings"
	"time"
)

// SystemStorage is the document at /os/1.0/system/storage.
type SystemStorage struct {
	Config SystemStorageConfig `json:"config"`
	State  SystemStorageState  `json:"state"`
}

// SystemStorageConfig is what the operator wants of drives and pools.
type SystemStorageConfig struct {
	// ScrubSchedule says when pools are checked: five fields as in cron,
	// minute, hour, day, month and day of the week. "" is never.
	ScrubSchedule string `json:"scrub_schedule"`

	// Pools is both what exists and what is wanted: clients since Incus 7.0.2
	// show the pools listed here rather than those in the state, and send
	// the list back when they edit it.
	Pools []StoragePool `json:"pools,omitempty"`
}

// SystemStorageState is what the machine reports of drives and pools.
type SystemStorageState struct {
	Drives        []StorageDrive `json:"drives"`
	Pools         []StoragePool  `json:"pools"` // the same as in the configuration, for older clients
	RootPartition RootPartition  `json:"root_partition"`
}

// RootPartition is the writable file system of the system itself.
type RootPartition struct {
	Size      uint64 `json:"size_in_bytes"`
	Available uint64 `json:"available_in_bytes"`
}

// A StoragePool is a ZFS pool. The fields after Special are observed, and
// ignored in requests.
type StoragePool struct {
	Name               string       `json:"name"`
	Type               string       `json:"type"` // one of PoolTypes
	AllowMixedDevSizes bool         `json:"allow_mixed_dev_sizes,omitempty"`
	Devices            []string     `json:"devices"` // drive ids; "" takes out the drive at that place
	Cache              []string     `json:"cache,omitempty"`
	Log                []string     `json:"log,omitempty"`
	Special            *PoolSpecial `json:"special,omitempty"`

	Managed             bool         `json:"managed"` // its key is kept by the system
	State               string       `json:"state"`   // as ZFS says: "ONLINE", "DEGRADED", ...
	LastScrub           *PoolScrub   `json:"last_scrub,omitempty"`
	EncryptionKeyStatus string       `json:"encryption_key_status"` // as ZFS says: "available", ...
	DevicesDegraded     []string     `json:"devices_degraded,omitempty"`
	CacheDegraded       []string     `json:"cache_degraded,omitempty"`
	LogDegraded         []string     `json:"log_degraded,omitempty"`
	SpecialDegraded     []string     `json:"special_degraded,omitempty"`
	RawSize             uint64       `json:"raw_pool_size_in_bytes"`
	UsableSize          uint64       `json:"usable_pool_size_in_bytes"`
	Allocated           uint64       `json:"pool_allocated_space_in_bytes"`
	Volumes             []PoolVolume `json:"volumes"`
}

// PoolTypes returns the layouts a pool can have.
func PoolTypes() []string {
	return []string{"zfs-raid0", "zfs-raid1", "zfs-raid10", "zfs-raidz1", "zfs-raidz2", "zfs-raidz3"}
}

// A PoolSpecial is the part of a pool that holds metadata and small blocks.
type PoolSpecial struct {
	Type           string   `json:"type"`                            // one of PoolTypes
	SmallBlocksKiB uint64   `json:"special_small_blocks_size_in_kb"` // blocks up to this size go there too
	Devices        []string `json:"devices"`
}

// A PoolScrub is the last check of a pool's data against its checksums.
type PoolScrub struct {
	State     string    `json:"state"` // "UNKNOWN", "IN_PROGRESS" or "FINISHED"
	StartTime time.Time `json:"start_time"`
	EndTime   time.Time `json:"end_time"` // while in progress: when it will probably end
	Progress  string    `json:"progress"` // such as "42.00%"
	Errors    uint64    `json:"errors"`
}

// A PoolVolume is a dataset of a pool.
type PoolVolume struct {
	Name  string `json:"name"`
	Usage uint64 `json:"usage_in_bytes"`
	Quota uint64 `json:"quota_in_bytes"` // 0: none
	Use   string `json:"use"`            // who it belongs to, such as "incus"; "" unknown
}

// A StorageDrive is a disk of the machine.
type StorageDrive struct {
	ID           string      `json:"id"` // "/dev/disk/by-id/..."
	ModelFamily  string      `json:"model_family"`
	ModelName    string      `json:"model_name"`
	SerialNumber string      `json:"serial_number"`
	Bus          string      `json:"bus"` // such as "nvme"
	Capacity     uint64      `json:"capacity_in_bytes"`
	Boot         bool        `json:"boot"` // holds the system
	Multipath    bool        `json:"multipath"`
	Removable    bool        `json:"removable"`
	Remote       bool        `json:"remote"` // reached over a network
	WWN          string      `json:"wwn,omitempty"`
	WWNID        string      `json:"wwn_id,omitempty"` // "/dev/disk/by-id/wwn-..."
	SMART        *DriveSMART `json:"smart,omitempty"`
	MemberPool   string      `json:"member_pool,omitempty"`
	Encrypted    bool        `json:"encrypted,omitempty"`
	EncryptedID  string      `json:"encrypted_id,omitempty"` // the opened device
}

// DriveSMART is a drive's report on its own health.
type DriveSMART struct {
	Enabled            bool   `json:"enabled"`
	Passed             bool   `json:"passed"`
	Error              string `json:"error,omitempty"`
	PowerOnHours       int64  `json:"power_on_hours,omitempty"`
	DataUnitsRead      int64  `json:"data_units_read,omitempty"`
	DataUnitsWritten   int64  `json:"data_units_written,omitempty"`
	AvailableSpare     int64  `json:"available_spare,omitempty"` // percent
	PercentageUsed     int64  `json:"percentage_used,omitempty"`
	RawReadErrorRate   int64  `json:"raw_read_error_rate,omitempty"`
	SeekErrorRate      int64  `json:"seek_error_rate,omitempty"`
	ReallocatedSectors int64  `json:"reallocated_sectors,omitempty"`
}

// Validate reports the first problem in c that can be seen from c alone. Pools
// are judged by the storage area, which knows what exists.
func (c SystemStorageConfig) Validate() error {
	if c.ScrubSchedule == "" {
		return nil
	}
	fields := strings.Fields(c.ScrubSchedule)
	if len(fields) != len(cronRanges()) {
		return Fieldf("scrub_schedule", "%q has %d fields; want minute, hour, day, month and day of the week, such as %q",
			c.ScrubSchedule, len(fields), "0 4 * * 0")
	}
	for i, r := range cronRanges() {
		if !r.allows(fields[i]) {
			return Fieldf("scrub_schedule", "%q is no %s; want *, or numbers from %d to %d", fields[i], r.name, r.min, r.max)
		}
	}
	return nil
}

// A cronRange is what one field of a schedule may be.
type cronRange struct {
	name     string
	min, max int
}

func cronRanges() []cronRange {
	return []cronRange{{"minute", 0, 59}, {"hour", 0, 23}, {"day", 1, 31}, {"month", 1, 12}, {"day of the week", 0, 7}}
}

// allows reports whether field is a list of numbers, ranges and "*", each with
// an optional step: "0", "*/2", "1-5,10".
func (r cronRange) allows(field string) bool {
	for part := range strings.SplitSeq(field, ",") {
		span, step, stepped := strings.Cut(part, "/")
		if n, err := strconv.Atoi(step); stepped && (err != nil || n < 1) {
			return false
		}
		if span == "*" {
			continue
		}
		from, to, isRange := strings.Cut(span, "-")
		if !isRange {
			to = from
		}
		low, lowErr := strconv.Atoi(from)
		high, highErr := strconv.Atoi(to)
		if lowErr != nil || highErr != nil || low < r.min || high > r.max || low > high {
			return false
		}
	}
	return true
}
