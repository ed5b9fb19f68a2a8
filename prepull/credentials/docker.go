package credentials

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// maxFile bounds a config file; the largest sensible ones are a few KiB.
const maxFile = 1 << 20

// dockerFile is a docker config.json.
type dockerFile struct {
	path     string
	optional bool
}

func (f dockerFile) read() (entries, error) {
	found, err := readDockerConfig(f.path)
	if f.optional && errors.Is(err, fs.ErrNotExist) {
		return entries{}, nil
	}
	return found, err
}

func readDockerConfig(path string) (entries, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("read docker config: %w", err)
	}
	found, err := parseDockerConfig(data)
	if err != nil {
		return nil, fmt.Errorf("read docker config %s: %w", path, err)
	}
	return found, nil
}

// parseDockerConfig reads the auths of a config.json. Its errors quote nothing of the file.
func parseDockerConfig(data []byte) (entries, error) {
	var config struct {
		Auths map[string]struct {
			Auth          string `json:"auth"`
			Username      string `json:"username"`
			Password      string `json:"password"`
			IdentityToken string `json:"identitytoken"`
		} `json:"auths"`
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return nil, errors.New("it is no JSON of the form {\"auths\": {\"registry\": {\"auth\": \"...\"}}}")
	}
	found := entries{}
	for key, auth := range config.Auths {
		pattern, ok := patternOf(key)
		if !ok {
			continue
		}
		e := entry{username: auth.Username, secret: auth.Password}
		if auth.Auth != "" {
			plain, err := base64.StdEncoding.DecodeString(auth.Auth)
			if err != nil {
				return nil, fmt.Errorf("the auth of %s is no base64", pattern)
			}
			username, secret, ok := strings.Cut(string(plain), ":")
			if !ok {
				return nil, fmt.Errorf("the auth of %s is not user:password", pattern)
			}
			e = entry{username: username, secret: strings.TrimRight(secret, "\x00")}
		}
		if auth.IdentityToken != "" {
			// An empty user name marks a refresh token for the registry client.
			e = entry{secret: auth.IdentityToken}
		}
		if e != (entry{}) {
			found[pattern] = e
		}
	}
	return found, nil
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s has %d bytes, at most %d are allowed", path, info.Size(), maxFile)
	}
	return os.ReadFile(path)
}
