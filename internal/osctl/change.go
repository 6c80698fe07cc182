package osctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/incusos/incusos/client"
)

// A Resource is one that is known by its path alone.
type Resource = client.Resource[json.RawMessage, json.RawMessage]

// At returns the resource at a path below /1.0, such as "system/network".
func At(c *client.Client, path string) Resource {
	return client.At[json.RawMessage, json.RawMessage](c, "/1.0/"+path)
}

// Show shows the document of a resource; only its configuration, in a form that
// ReadConfig takes, or only its tag.
func Show(ctx context.Context, r Resource, onlyConfig, onlyTag bool, p Printer) error {
	doc, tag, err := r.Tagged(ctx)
	if err != nil {
		return err
	}
	if onlyTag {
		_, err := fmt.Fprintln(p.Out, tag)
		return err
	}
	if !onlyConfig {
		return p.Value(doc)
	}
	var c struct {
		Config json.RawMessage `json:"config"`
	}
	if err := json.Unmarshal(doc, &c); err != nil {
		return err
	}
	if p.Format == Table {
		p.Format = YAML
	}
	return p.Value(c)
}

// ConfirmWords are the words of the command that confirms a change of the
// resource at path.
func ConfirmWords(path string) []string {
	dir, name, _ := strings.Cut(path, "/")
	if dir == "system" {
		return []string{dir, name, "confirm"}
	}
	return []string{dir, "confirm", name}
}

// Plan shows what a change would do.
func Plan(ctx context.Context, r Resource, config json.RawMessage, p Printer) error {
	plan, err := r.Plan(ctx, config)
	if err != nil {
		return err
	}
	if p.Format != Table {
		return p.Value(plan)
	}
	if plan.Text == "" {
		plan.Text = "nothing to do\n"
	}
	_, err = io.WriteString(p.Out, plan.Text)
	return err
}

// Change changes a configuration, and says what is left to do. Confirm is the
// command that keeps a change on trial.
func Change(ctx context.Context, c *client.Client, r Resource, config json.RawMessage, o client.TryOptions, confirm string, out io.Writer) error {
	if err := r.Put(ctx, config, o); err != nil {
		return pending(ctx, c, err)
	}
	if o.Within > 0 {
		fmt.Fprintf(out, "on trial for %v; keep it with: %s\n", o.Within, confirm)
	}
	return nil
}

// pending marks a refusal that is due to another change on trial.
func pending(ctx context.Context, c *client.Client, err error) error {
	e, ok := errors.AsType[*client.Error](err)
	if !ok || e.Status != http.StatusConflict {
		return err
	}
	if t, asking := c.Trial(ctx); asking == nil && t != nil {
		return coded{err, Pending}
	}
	return err
}
