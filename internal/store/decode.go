package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// Parse returns the configuration in the content of a document's file, or why
// Open would not take it.
func Parse[T any](content []byte) (T, error) {
	var env envelope[T]
	var whole map[string]any
	err := decode(content, &env, &whole)
	return env.Config, err
}

// decode reads a file into env, and once more without types into whole.
func decode[T any](data []byte, env *envelope[T], whole *map[string]any) error {
	if len(bytes.TrimSpace(data)) == 0 {
		return errors.New(`is empty; want {"schema":1,"config":{...}}`)
	}
	if err := json.Unmarshal(data, env); err != nil {
		return locate(data, err)
	}
	v, err := generic(data)
	if err != nil {
		return err
	}
	w, ok := v.(map[string]any)
	if !ok || w["config"] == nil || env.Schema < 1 {
		return errors.New(`has no schema or no config; want {"schema":1,"config":{...}}`)
	}
	*whole = w
	return nil
}

// locate adds to an error of package json where in data it is.
func locate(data []byte, err error) error {
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("%s: %w", position(data, e.Offset), err)
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if e.Field == "" {
			return fmt.Errorf(`%s: the document is of type %s; want {"schema":1,"config":{...}}`, position(data, e.Offset), e.Value)
		}
		return fmt.Errorf("%s: %s is of type %s; want %s", position(data, e.Offset), e.Field, e.Value, e.Type)
	}
	return err
}

// position returns the line and column, from 1, of the last of the first offset
// bytes.
func position(data []byte, offset int64) string {
	read := data[:min(max(offset, 0), int64(len(data)))]
	line := bytes.Count(read, []byte("\n")) + 1
	column := len(read) - (bytes.LastIndexByte(read, '\n') + 1)
	return fmt.Sprintf("line %d, column %d", line, max(column, 1))
}
