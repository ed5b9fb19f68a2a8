package credentials

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Login is what to log in with. An empty Username marks a refresh token.
type Login struct{ Username, Secret string }

// String keeps credentials out of every log.
func (l Login) String() string { return fmt.Sprintf("credentials of %d characters", len(l.Secret)) }

// GoString keeps credentials out of every log.
func (l Login) GoString() string { return l.String() }

// FromDockerConfig returns what the content of a docker config.json holds for an image, which is a normalised name with or
// without tag and digest: the best first, in the order in which a kubelet tries them. Helpers that it names are not run. Its
// errors quote nothing.
func FromDockerConfig(data []byte, image string) ([]Login, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("it has %d bytes, at most %d are allowed", len(data), maxFile)
	}
	found, err := parseDockerConfig(data)
	if err != nil {
		return nil, err
	}
	var out []Login
	for _, e := range distinct(found.auths.find(repositoryAt(image, ""))) {
		out = append(out, Login{Username: e.username, Secret: e.secret})
	}
	return out, nil
}

// FromDockerCfg does the same with the older .dockercfg, which has no "auths" around its entries.
func FromDockerCfg(data []byte, image string) ([]Login, error) {
	var auths json.RawMessage
	if json.Unmarshal(data, &auths) != nil {
		return nil, errors.New("it is no JSON of the form {\"registry\": {\"auth\": \"...\"}}")
	}
	config, err := json.Marshal(map[string]json.RawMessage{"auths": auths})
	if err != nil {
		return nil, errors.New("it cannot be read")
	}
	return FromDockerConfig(config, image)
}
