package osctl

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/goccy/go-yaml"
)

// documentLimit is the longest document, in bytes: what a machine takes.
const documentLimit = 1 << 20

// ReadConfig returns the configuration in the document that is in a file: its
// part `config`. The document is YAML or JSON, as Show prints it; "-" is stdin. A
// key twice is a mistake here; a key that nobody knows is one that the machine
// reports, with its place.
func ReadConfig(name string, stdin io.Reader) (json.RawMessage, error) {
	data, err := readDocument(name, stdin)
	if err != nil {
		return nil, Wrong(err)
	}
	config, err := configOf(data)
	if err != nil {
		return nil, Wrong(fmt.Errorf("%s: %w", name, err))
	}
	return config, nil
}

func readDocument(name string, stdin io.Reader) ([]byte, error) {
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		stdin = f
	}
	data, err := io.ReadAll(io.LimitReader(stdin, documentLimit+1))
	if err == nil && len(data) > documentLimit {
		err = fmt.Errorf("%s is longer than %d MiB; a machine takes no document of that length", name, documentLimit>>20)
	}
	return data, err
}

// configOf returns the part `config` of a document as JSON.
func configOf(data []byte) (json.RawMessage, error) {
	doc, err := decodeYAML(data)
	if err != nil {
		return nil, err
	}
	top, ok := doc.(map[string]any)
	config, has := top["config"]
	switch {
	case !ok || !has:
		return nil, errors.New("has no `config`; want a document such as `show` prints, with the configuration below `config:`")
	case config == nil:
		return nil, errors.New("config: is empty; want the whole configuration, {} for one with nothing set")
	}
	for key := range top {
		if key != "config" && key != "state" {
			return nil, fmt.Errorf("%s: is unknown; want config, and state, which is ignored", key)
		}
	}
	return json.Marshal(config)
}

// decodeYAML reads the only document in data; JSON is a part of YAML.
func decodeYAML(data []byte) (doc any, err error) {
	var in = yaml.NewDecoder(bytes.NewReader(data))
	if err := in.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, errors.New("is empty")
	} else if err != nil {
		return nil, inOneLine(err)
	}
	var more any
	if err := in.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, errors.New("has more than one document; want one")
	}
	return doc, nil
}

// inOneLine says where a mistake is without the picture that the parser draws.
func inOneLine(err error) error {
	if at, ok := errors.AsType[yaml.Error](err); ok && at.GetToken() != nil {
		p := at.GetToken().Position
		return fmt.Errorf("line %d, column %d: %s", p.Line, p.Column, at.GetMessage())
	}
	return err
}
