package credentials

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// maxFile bounds a config file; the largest sensible ones are a few KiB.
const maxFile = 1 << 20

// dockerFile is a docker config.json.
type dockerFile struct {
	path     string
	optional bool
}

// find returns what fits an image, best first: the helper that is named for its registry, the file's own entries, and the
// helper for all.
func (f dockerFile) find(ctx context.Context, image string) ([]entry, error) {
	config, err := readDockerConfig(f.path)
	if f.optional && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	host, _, _ := strings.Cut(image, "/")
	fitting := config.auths.find(image)
	name, named := config.helperOf(host)
	if !named && len(fitting) > 0 {
		return fitting, nil
	}
	if name == "" {
		return fitting, nil
	}
	found, err := askHelper(ctx, name, host)
	if errors.Is(err, errNoHelper) && !named {
		return fitting, nil // a config that was copied from a desktop
	}
	if err == nil && found != (entry{}) {
		fitting = append([]entry{found}, fitting...)
	}
	return fitting, err
}

// dockerConfig is what a config.json says.
type dockerConfig struct {
	auths   entries
	helpers map[string]string // by host
	store   string
	skipped []string // entries that cannot be read
}

// helperOf returns the program to ask for a host, and whether it is named for it.
func (c dockerConfig) helperOf(host string) (name string, named bool) {
	for key, helper := range c.helpers {
		pattern, ok := patternOf(key)
		if at, _, _ := strings.Cut(pattern, "/"); ok && (at == host || isDockerHub(at) && isDockerHub(host)) {
			return helper, true
		}
	}
	return c.store, false
}

func readDockerConfig(path string) (dockerConfig, error) {
	data, err := readFile(path)
	if err != nil {
		return dockerConfig{}, fmt.Errorf("read docker config: %w", err)
	}
	found, err := parseDockerConfig(data)
	if err != nil {
		return dockerConfig{}, fmt.Errorf("read docker config %s: %w", path, err)
	}
	return found, nil
}

// parseDockerConfig reads a config.json. Its errors quote nothing of the file. An entry that cannot be read is passed over:
// it may be any of many registries'.
func parseDockerConfig(data []byte) (dockerConfig, error) {
	var config struct {
		Auths map[string]struct {
			Auth          string `json:"auth"`
			Username      string `json:"username"`
			Password      string `json:"password"`
			IdentityToken string `json:"identitytoken"`
		} `json:"auths"`
		CredHelpers map[string]string `json:"credHelpers"`
		CredsStore  string            `json:"credsStore"`
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return dockerConfig{}, errors.New("it is no JSON of the form {\"auths\": {\"registry\": {\"auth\": \"...\"}}}")
	}
	found := dockerConfig{auths: entries{}, helpers: config.CredHelpers, store: config.CredsStore}
	for key, auth := range config.Auths {
		pattern, ok := patternOf(key)
		if !ok {
			continue
		}
		e := entry{username: auth.Username, secret: auth.Password}
		if auth.Auth != "" {
			var err error
			if e, err = decodeAuth(auth.Auth); err != nil {
				found.skipped = append(found.skipped, fmt.Sprintf("the auth of %s %s", pattern, err))
				continue
			}
		}
		if auth.IdentityToken != "" {
			// An empty user name marks a refresh token for the registry client.
			e = entry{secret: auth.IdentityToken}
		}
		if e != (entry{}) {
			found.auths[pattern] = e
		}
	}
	slices.Sort(found.skipped)
	return found, nil
}

// decodeAuth reads user:password in base64, with its padding or without: tools write both.
func decodeAuth(auth string) (entry, error) {
	encoding := base64.RawStdEncoding
	if strings.ContainsAny(auth, "-_") {
		encoding = base64.RawURLEncoding
	}
	plain, err := encoding.DecodeString(strings.TrimRight(strings.TrimSpace(auth), "="))
	if err != nil {
		return entry{}, errors.New("is no base64")
	}
	username, secret, ok := strings.Cut(string(plain), ":")
	if !ok {
		return entry{}, errors.New("is not user:password")
	}
	return entry{username: username, secret: strings.TrimRight(secret, "\x00\n\r")}, nil
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
