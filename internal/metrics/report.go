package metrics

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/incusos/incusos/api"
)

// reportType names the form of a report.
const reportType = "application/vnd.incus-os.debug-report.v1+json"

// Report returns the figures as a document: those whose name holds one of the
// words in match, or all.
func (m *Metrics) Report(ctx context.Context, match []string) api.DebugReport {
	r := api.DebugReport{
		MediaType: reportType,
		Timestamp: time.Now().UTC().Format(time.RFC3339),
		Metrics:   []api.ReportMetric{},
	}
	for _, f := range m.Read(ctx) {
		if len(match) > 0 && !slices.ContainsFunc(match, func(word string) bool { return strings.Contains(f.family.name, word) }) {
			continue
		}
		r.Metrics = append(r.Metrics, f.metric())
	}
	return r
}

func (f Figure) metric() api.ReportMetric {
	out := api.ReportMetric{Name: f.family.name, Object: f.object, Value: f.value}
	for _, l := range f.fields {
		if l.value == "" {
			continue
		}
		if out.Fields == nil {
			out.Fields = make(map[string]any)
		}
		out.Fields[l.name] = l.value
	}
	return out
}
