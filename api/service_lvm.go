package api

// ServiceLVM is the document of /os/1.0/services/lvm.
type ServiceLVM struct {
	Config ServiceLVMConfig `json:"config"`
	State  ServiceLVMState  `json:"state"`
}

// ServiceLVMConfig lets this machine share volume groups with others. Leases on
// the shared disks themselves say who may change what (lvmlockd and sanlock).
type ServiceLVMConfig struct {
	ServiceConfig
	SystemID int `json:"system_id,omitempty"` // 1 to 2000; another one on each machine that shares disks
}

// ServiceLVMState is what LVM finds on this machine. Names of fields are LVM's
// own.
type ServiceLVMState struct {
	ServiceState
	PVs []ServiceLVMPV  `json:"pvs,omitempty"`
	VGs []ServiceLVMVG  `json:"vgs,omitempty"`
	Log []ServiceLVMLog `json:"log,omitempty"` // what LVM had to say, such as a disk that is missing
}

// A ServiceLVMPV is a physical volume.
type ServiceLVMPV struct {
	PVName string `json:"pv_name"`
	VGName string `json:"vg_name"`
	PVFmt  string `json:"pv_fmt"`
	PVAttr string `json:"pv_attr"` // see pvs(8)
	PVSize string `json:"pv_size"`
	PVFree string `json:"pv_free"`
}

// A ServiceLVMVG is a volume group.
type ServiceLVMVG struct {
	VGName    string `json:"vg_name"`
	PVCount   int    `json:"pv_count"`
	LVCount   int    `json:"lv_count"`
	SnapCount int    `json:"snap_count"`
	VGAttr    string `json:"vg_attr"` // see vgs(8)
	VGSize    string `json:"vg_size"`
	VGFree    string `json:"vg_free"`
}

// A ServiceLVMLog is a message of LVM.
type ServiceLVMLog struct {
	SeqNum        int    `json:"log_seq_num"`
	Type          string `json:"log_type"`
	Context       string `json:"log_context"`
	ObjectType    string `json:"log_object_type"`
	ObjectName    string `json:"log_object_name"`
	ObjectID      string `json:"log_object_id"`
	ObjectGroup   string `json:"log_object_group"`
	ObjectGroupID string `json:"log_object_group_id"`
	Message       string `json:"log_message"`
	Errno         int    `json:"log_errno"`
	RetCode       int    `json:"log_ret_code"`
}

// Validate reports the first thing in c that cannot work, as a FieldError.
func (c ServiceLVMConfig) Validate() error {
	// sanlock(8): host ids.
	if c.SystemID < 0 || c.SystemID > 2000 || c.Enabled && c.SystemID == 0 {
		return Fieldf("system_id", "%d is no id of a machine; want 1 to 2000, another one on each machine that shares disks", c.SystemID)
	}
	return nil
}
