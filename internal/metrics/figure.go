package metrics

// A Figure is one number about the machine, or about an object that the machine
// has several of.
type Figure struct {
	family family
	object string  // such as the name of a pool; "" is the machine
	fields []field // more about it
	value  float64
}

// A field is a word about a figure.
type field struct{ name, value string }

// A family is figures of one kind. All are gauges, which are written alike in
// both forms of text that Prometheus reads.
type family struct {
	name   string // with its unit at the end
	help   string // a sentence, without quotes, backslashes and line ends
	object string // what the label of the object is called
}

// of returns the figure of an object, "" for one of the machine itself.
func (f family) of(object string, value float64, fields ...field) Figure {
	return Figure{f, object, fields, value}
}

// yes returns the figure of a question.
func (f family) yes(object string, is bool, fields ...field) Figure {
	value := 0.0
	if is {
		value = 1
	}
	return f.of(object, value, fields...)
}

// The figures there are.
var (
	info         = family{"incusos_info", "What runs; always 1.", ""}
	ready        = family{"incusos_ready", "Whether every area was brought up once since the start.", ""}
	uptime       = family{"incusos_uptime_seconds", "Time since the machine was started.", ""}
	rebootNeeded = family{"incusos_reboot_needed", "Whether the next start runs another version.", ""}
	trialPending = family{"incusos_trial_pending", "Whether a change waits to be confirmed, and which.", "resource"}
	warnings     = family{"incusos_warnings", "Warnings that the console shows.", ""}
	tasksRunning = family{"incusos_tasks_running", "Work that takes longer than a request.", ""}
	failed       = family{"incusos_source_failed", "What could not be read, so that its figures are missing; always 1.", "source"}

	areaHealthy = family{"incusos_area_healthy", "Whether an area matches its configuration.", "area"}
	areaSince   = family{"incusos_area_degraded_since_seconds", "Unix time since which an area does not; missing if it does.", "area"}

	poolOnline    = family{"incusos_pool_online", "Whether a pool is there with all its drives.", "pool"}
	poolSize      = family{"incusos_pool_size_bytes", "Size of the drives of a pool.", "pool"}
	poolUsable    = family{"incusos_pool_usable_bytes", "What a pool can hold.", "pool"}
	poolAllocated = family{"incusos_pool_allocated_bytes", "What is taken of the size of a pool.", "pool"}
	poolDegraded  = family{"incusos_pool_devices_degraded", "Drives of a pool that are not in order.", "pool"}
	poolErrors    = family{"incusos_pool_scrub_errors", "Errors that the last scrub of a pool found; missing if there was none.", "pool"}
	poolScrubbed  = family{"incusos_pool_scrubbed_seconds", "Unix time at which the last scrub of a pool ended; missing if there was none.", "pool"}

	driveSize    = family{"incusos_drive_size_bytes", "Size of a drive.", "drive"}
	driveHealthy = family{"incusos_drive_healthy", "Whether a drive passes its own test; missing if it has none.", "drive"}
	driveUsed    = family{"incusos_drive_wear_percent", "How much of its life a drive has used; missing if it does not say.", "drive"}

	rootSize = family{"incusos_root_size_bytes", "Size of the file system of the system itself.", ""}
	rootFree = family{"incusos_root_free_bytes", "What is free of it.", ""}

	memoryTotal     = family{"incusos_memory_total_bytes", "Memory of the machine.", ""}
	memoryAvailable = family{"incusos_memory_available_bytes", "Memory that programs can have without others going short.", ""}
	load            = family{"incusos_load", "Programs that run or wait, on average over so many minutes.", "minutes"}
	daemonMemory    = family{"incusos_daemon_memory_bytes", "Memory that incus-osd has in use.", ""}
)
