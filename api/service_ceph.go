package api

import (
	"maps"
	"slices"
	"strings"
)

// ServiceCeph is the document of /os/1.0/services/ceph.
type ServiceCeph struct {
	Config ServiceCephConfig `json:"config"`
	State  ServiceCephState  `json:"state"`
}

// ServiceCephConfig makes this machine a client of Ceph clusters.
type ServiceCephConfig struct {
	ServiceConfig
	Clusters map[string]ServiceCephCluster `json:"clusters,omitempty"` // by name, mostly "ceph"
}

// A ServiceCephCluster is a cluster to be a client of.
type ServiceCephCluster struct {
	FSID         string                        `json:"fsid"`                    // UUID of the cluster
	Monitors     []string                      `json:"monitors"`                // their addresses, such as "192.0.2.31" or "[v2:192.0.2.31:3300,v1:192.0.2.31:6789]"
	Keyrings     map[string]ServiceCephKeyring `json:"keyrings"`                // by the name of the user, without "client."
	ClientConfig map[string]string             `json:"client_config,omitempty"` // settings of the section client of ceph.conf
}

// A ServiceCephKeyring is the key of a user.
type ServiceCephKeyring struct {
	Key Secret `json:"key"`
}

// Validate reports the first thing in c that cannot work, as a FieldError.
func (c ServiceCephConfig) Validate() error {
	for _, name := range slices.Sorted(maps.Keys(c.Clusters)) {
		field := "clusters." + name
		if name == "" || !only(name, "-_") {
			return Fieldf(field, "%q is no name of a cluster; want letters, digits, dashes and underscores", name)
		}
		if err := c.Clusters[name].validate(field); err != nil {
			return err
		}
	}
	return nil
}

func (c ServiceCephCluster) validate(field string) error {
	if !uuid(c.FSID) {
		return Fieldf(field+".fsid", "%q is no id of a cluster; want a UUID, which `ceph fsid` prints", c.FSID)
	}
	if len(c.Monitors) == 0 {
		return Fieldf(field+".monitors", "is empty; want the address of at least one monitor")
	}
	for _, m := range c.Monitors {
		if m == "" || !only(m, "-.:,[]/") {
			return Fieldf(field+".monitors", "%q is no address of a monitor; want one such as %q", m, "192.0.2.31")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Keyrings)) {
		if name == "" || !only(name, "-_.") {
			return Fieldf(field+".keyrings."+name, "%q is no name of a user; want letters, digits, dots, dashes and underscores, without \"client.\"", name)
		}
		if key := string(c.Keyrings[name].Key); key == "" || !only(key, "+/=") {
			return Fieldf(field+".keyrings."+name+".key", "is no key; want what `ceph auth get-key` prints")
		}
	}
	for _, key := range slices.Sorted(maps.Keys(c.ClientConfig)) {
		if key == "" || !only(key, "-_ ") || strings.ContainsAny(c.ClientConfig[key], "\n\r\x00") {
			return Fieldf(field+".client_config."+key, "cannot be written to ceph.conf; want a key of letters, digits and underscores, and a value of one line")
		}
	}
	return nil
}

// uuid reports whether s is a UUID as text (RFC 9562, section 4).
func uuid(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, r := range s {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash != (r == '-') || !dash && !strings.ContainsRune("0123456789abcdefABCDEF", r) {
			return false
		}
	}
	return true
}

// ServiceCephState is what the cluster says of itself. Names of fields are
// Ceph's own.
type ServiceCephState struct {
	ServiceState
	FSID          string                 `json:"fsid,omitempty"`
	Health        *ServiceCephHealth     `json:"health,omitempty"`
	ElectionEpoch int                    `json:"election_epoch,omitempty"`
	Quorum        []int                  `json:"quorum,omitempty"`
	QuorumNames   []string               `json:"quorum_names,omitempty"`
	QuorumAge     int                    `json:"quorum_age,omitempty"` // seconds
	MonMap        *ServiceCephMonMap     `json:"monmap,omitempty"`
	OSDMap        *ServiceCephOSDMap     `json:"osdmap,omitempty"`
	PGMap         *ServiceCephPGMap      `json:"pgmap,omitempty"`
	FSMap         *ServiceCephFSMap      `json:"fsmap,omitempty"`
	MgrMap        *ServiceCephMgrMap     `json:"mgrmap,omitempty"`
	ServiceMap    *ServiceCephServiceMap `json:"servicemap,omitempty"`
}

// ServiceCephHealth is how well a cluster is.
type ServiceCephHealth struct {
	Status string                      `json:"status"` // "HEALTH_OK", "HEALTH_WARN" or "HEALTH_ERR"
	Checks map[string]ServiceCephCheck `json:"checks"`
}

// A ServiceCephCheck is something that is not well.
type ServiceCephCheck struct {
	Severity string             `json:"severity"`
	Summary  ServiceCephSummary `json:"summary"`
	Muted    bool               `json:"muted"`
}

// A ServiceCephSummary says it in words.
type ServiceCephSummary struct {
	Message string `json:"message"`
	Count   int    `json:"count"`
}

// ServiceCephMonMap is the monitors.
type ServiceCephMonMap struct {
	Epoch             int    `json:"epoch"`
	MinMonReleaseName string `json:"min_mon_release_name"`
	NumMons           int    `json:"num_mons"`
}

// ServiceCephOSDMap is the disks.
type ServiceCephOSDMap struct {
	Epoch          int `json:"epoch"`
	NumOSDs        int `json:"num_osds"`
	NumUpOSDs      int `json:"num_up_osds"`
	OSDUpSince     int `json:"osd_up_since"`
	NumInOSDs      int `json:"num_in_osds"`
	OSDInSince     int `json:"osd_in_since"`
	NumRemappedPGs int `json:"num_remapped_pgs"`
}

// ServiceCephPGMap is the data.
type ServiceCephPGMap struct {
	PGsByState []ServiceCephPGState `json:"pgs_by_state"`
	NumPGs     int                  `json:"num_pgs"`
	NumPools   int                  `json:"num_pools"`
	NumObjects int                  `json:"num_objects"`
	DataBytes  int                  `json:"data_bytes"`
	BytesUsed  int                  `json:"bytes_used"`
	BytesAvail int                  `json:"bytes_avail"`
	BytesTotal int                  `json:"bytes_total"`
}

// A ServiceCephPGState counts placement groups in one state.
type ServiceCephPGState struct {
	StateName string `json:"state_name"`
	Count     int    `json:"count"`
}

// ServiceCephFSMap is the file systems.
type ServiceCephFSMap struct {
	Epoch int    `json:"epoch"`
	BTime string `json:"btime"`
}

// ServiceCephMgrMap is the managers.
type ServiceCephMgrMap struct {
	Available   bool     `json:"available"`
	NumStandbys int      `json:"num_standbys"`
	Modules     []string `json:"modules"`
}

// ServiceCephServiceMap is what else runs in the cluster.
type ServiceCephServiceMap struct {
	Epoch    int            `json:"epoch"`
	Modified string         `json:"modified"`
	Services map[string]any `json:"services"`
}
