package osctl

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/client"
)

// Pools lists the names of a machine's pools.
func Pools(ctx context.Context, c *client.Client, _ []string) ([]string, error) {
	doc, err := c.Storage().Get(ctx)
	var names []string
	for _, p := range doc.State.Pools {
		names = append(names, p.Name)
	}
	return names, err
}

// Volumes lists the names of the datasets of a pool, which is the first of args.
func Volumes(ctx context.Context, c *client.Client, args []string) ([]string, error) {
	doc, err := c.Storage().Get(ctx)
	var names []string
	for _, p := range doc.State.Pools {
		if p.Name == args[0] {
			for _, v := range p.Volumes {
				names = append(names, v.Name)
			}
		}
	}
	return names, err
}

// Drives lists the ids of a machine's drives, but for those that it runs from.
func Drives(ctx context.Context, c *client.Client, _ []string) ([]string, error) {
	doc, err := c.Storage().Get(ctx)
	var ids []string
	for _, d := range doc.State.Drives {
		if !d.Boot {
			ids = append(ids, d.ID)
		}
	}
	return ids, err
}

// ReadKey returns the key in a file, "-" for stdin. A key in a command line would
// be in the list of processes and in the history of the shell.
func ReadKey(name string, stdin io.Reader) (api.Secret, error) {
	text, err := readDocument(name, stdin)
	key := strings.TrimSpace(string(text))
	if err == nil && (key == "" || strings.ContainsAny(key, "\n\r")) {
		err = fmt.Errorf("%s holds no key; want one line, 32 bytes in base64", name)
	}
	return api.Secret(key), Wrong(err)
}

// ReadSections returns the sections of a seed that are in files, each named after
// its section, such as incus.yaml.
func ReadSections(files []string) (map[string]json.RawMessage, error) {
	all := make(map[string]json.RawMessage)
	for _, name := range files {
		section := strings.TrimSuffix(filepath.Base(name), filepath.Ext(name))
		if all[section] != nil {
			return nil, Wrong(fmt.Errorf("%s: there is a section %s already", name, section))
		}
		data, err := readDocument(name, strings.NewReader(""))
		if err != nil {
			return nil, Wrong(err)
		}
		doc, err := decodeYAML(data)
		if err == nil {
			all[section], err = json.Marshal(doc)
		}
		if err != nil {
			return nil, Wrong(fmt.Errorf("%s: %w", name, err))
		}
	}
	return all, nil
}
