package workload

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"k8s.io/client-go/util/jsonpath"
)

// Paths are JSONPaths to images. Not safe for concurrent use.
type Paths []*jsonpath.JSONPath

// ParsePaths reads JSONPaths as kubectl does; the braces may be left out.
func ParsePaths(texts []string) (Paths, error) {
	var paths Paths
	var errs []error
	for _, text := range texts {
		template := text
		if !strings.HasPrefix(template, "{") {
			template = "{." + strings.TrimPrefix(template, ".") + "}"
		}
		path := jsonpath.New("image").AllowMissingKeys(true)
		if err := path.Parse(template); err != nil {
			errs = append(errs, fmt.Errorf("read imagePaths %q: %w", text, err))
			continue
		}
		paths = append(paths, path)
	}
	return paths, errors.Join(errs...)
}

// at adds what the paths lead to in an object. What is there and is no text is no image.
func (c *collector) at(paths Paths, object map[string]any) {
	for _, path := range paths {
		results, err := path.FindResults(object)
		if err != nil {
			continue // another form than the path's: it leads to nothing
		}
		for _, list := range results {
			for _, value := range list {
				if !value.IsValid() || !value.CanInterface() {
					continue // null
				}
				if text, ok := reflect.TypeAssert[string](value); ok {
					c.add(text)
				}
			}
		}
	}
}
