// Package decode reads objects of which a schema lets through what Go's types refuse (a quantity such as "1e1.5", a number
// that is too large): a list is decoded as a whole, and one such object would be the end of the list for all the others.
// Start from Object, and call it from the type's UnmarshalJSON, so that every reader of the type is served.
package decode

import (
	stdjson "encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/util/json"
)

// Object decodes an object of the API from JSON into out, which must be zero and must not have an UnmarshalJSON of its
// own. Where Go's types refuse the whole of it, out has what they take of metadata and status, and no spec; why says in
// one line what was refused, and is "" for an object that was read whole. The error is of data that is no object at all.
func Object[T any](data []byte, out *T) (why string, err error) {
	refused := json.Unmarshal(data, out)
	if refused == nil {
		return "", nil
	}
	var parts map[string]stdjson.RawMessage
	if err := json.Unmarshal(data, &parts); err != nil {
		return "", fmt.Errorf("decode object: %w", err)
	}
	for _, without := range []string{"spec", "status"} {
		delete(parts, without)
		rest, err := stdjson.Marshal(parts)
		if err != nil {
			return "", fmt.Errorf("decode object: %w", err)
		}
		*out = *new(T)
		if err = json.Unmarshal(rest, out); err == nil {
			return fmt.Sprintf("the object cannot be read: %v", refused), nil
		}
	}
	return "", fmt.Errorf("decode object: %w", refused)
}
