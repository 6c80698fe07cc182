package resources

import (
	"fmt"
	"strings"

	"github.com/incusos/incusos/api"
)

const nodeDir = "/sys/devices/system/node"

func (m machine) memory() api.ResourcesMemory {
	info := parseMeminfo(m.text("/proc/meminfo"))
	page := info["Hugepagesize"]
	out := api.ResourcesMemory{
		HugepagesSize: page, HugepagesTotal: pages(info["HugePages_Total"], page),
		HugepagesUsed: pages(info["HugePages_Total"]-min(info["HugePages_Free"], info["HugePages_Total"]), page),
		Used:          info.used(), Total: info["MemTotal"], Nodes: []api.ResourcesMemoryNode{},
	}
	for _, node := range m.nodes() {
		n := parseMeminfo(m.text(fmt.Sprintf("%s/node%d/meminfo", nodeDir, node)))
		out.Nodes = append(out.Nodes, api.ResourcesMemoryNode{
			NUMANode: node, Used: n.used(), Total: n["MemTotal"], HugepagesTotal: pages(n["HugePages_Total"], page),
			HugepagesUsed: pages(n["HugePages_Total"]-min(n["HugePages_Free"], n["HugePages_Total"]), page),
		})
	}
	if len(out.Nodes) == 0 { // a kernel that knows nothing of NUMA
		out.Nodes = append(out.Nodes, api.ResourcesMemoryNode{Used: out.Used, Total: out.Total, HugepagesTotal: out.HugepagesTotal, HugepagesUsed: out.HugepagesUsed})
	}
	return out
}

// pages returns the size of so many pages, bytes.
func pages(count, size uint64) uint64 {
	if size == 0 || count > 1<<62/size {
		return 0
	}
	return count * size
}

// nodes returns the numbers of the NUMA nodes.
func (m machine) nodes() []uint64 {
	var out []uint64
	for _, name := range m.list(nodeDir) {
		if n, ok := strings.CutPrefix(name, "node"); ok && n != "" && strings.Trim(n, "0123456789") == "" {
			out = append(out, number(n))
		}
	}
	return out
}
