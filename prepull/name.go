package prepull

import (
	"fmt"

	"github.com/distribution/reference"
)

// Normalize returns the name under which the CRI knows a reference: nginx becomes docker.io/library/nginx:latest, and of
// name:tag@digest the tag is dropped. The error names the reference and says what is expected.
func Normalize(ref string) (string, error) {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return "", fmt.Errorf("parse image %q: %w; want [registry/]name[:tag][@sha256:...]", ref, err)
	}
	return named.String(), nil
}
