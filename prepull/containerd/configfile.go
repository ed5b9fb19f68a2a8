package containerd

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/net/http/httpproxy"

	"headstart.dev/bottlerocket"
)

// defaultConfigFile is what containerd runs with when it is given no other.
const defaultConfigFile = "/etc/containerd/config.toml"

// maxConfigFiles bounds what a config may import.
const maxConfigFiles = 64

// configFile returns the config of the containerd that is connected, as far as this process can see it: in a container
// that is the host's folder, where it is mounted.
func (n *node) configFile(ctx context.Context) string {
	if server, err := n.client.IntrospectionService().Server(ctx); err == nil {
		if _, cmdline, err := processOf(server.Pid, server.Pidns); err == nil {
			if flag := configFlag(cmdline); len(flag) == 2 {
				return flag[1]
			}
		}
	}
	if _, err := os.Stat(defaultConfigFile); err != nil {
		if inside := filepath.Join(bottlerocket.RootFS, defaultConfigFile); exists(inside) {
			return inside
		}
	}
	return defaultConfigFile
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// readConfigFiles reads a config and what it imports. What a file does not say has containerd's default, which is nothing
// for all that is looked for here.
func readConfigFiles(path string) (criSettings, error) {
	var s criSettings
	var errs []error
	queue, seen := []string{path}, map[string]bool{}
	for len(queue) > 0 && len(seen) < maxConfigFiles {
		file := queue[0]
		queue = queue[1:]
		if seen[file] {
			continue
		}
		seen[file] = true
		data, err := os.ReadFile(file)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		one, err := parseConfigDump(data)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", file, err))
			continue
		}
		s.discard = s.discard || one.discard
		s.configPath = cmp.Or(one.configPath, s.configPath)
		s.verifierDir = cmp.Or(one.verifierDir, s.verifierDir)
		s.registries = s.registries.with(one.registries)
		for _, pattern := range one.imports {
			if !filepath.IsAbs(pattern) {
				pattern = filepath.Join(filepath.Dir(file), pattern)
			}
			found, err := filepath.Glob(pattern)
			errs = append(errs, err)
			queue = append(queue, found...)
		}
	}
	return s, errors.Join(errs...)
}

// proxyVariables are what a process takes its proxies from.
var proxyVariables = []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"}

// proxySettings returns containerd's proxies as its environment has them, "" when it has none or when its environment is
// not for this process to read: the CRI then goes where we cannot.
func (n *node) proxySettings(ctx context.Context) string {
	server, err := n.client.IntrospectionService().Server(ctx)
	if err != nil {
		return ""
	}
	proc, _, err := processOf(server.Pid, server.Pidns)
	if err != nil {
		return ""
	}
	data, err := os.ReadFile(proc + "/environ")
	if err != nil {
		return ""
	}
	var found []string
	for variable := range bytes.SplitSeq(data, []byte{0}) {
		name, value, _ := strings.Cut(string(variable), "=")
		for _, known := range proxyVariables {
			if name == known && value != "" {
				found = append(found, string(variable))
			}
		}
	}
	return strings.Join(found, "\x00")
}

// proxyFrom makes a transport's choice of proxies of such settings; nil is that of this process.
func proxyFrom(settings string) func(*http.Request) (*url.URL, error) {
	if settings == "" {
		return nil
	}
	values := map[string]string{}
	for variable := range strings.SplitSeq(settings, "\x00") {
		name, value, _ := strings.Cut(variable, "=")
		values[strings.ToUpper(name)] = cmp.Or(value, values[strings.ToUpper(name)])
	}
	choose := (&httpproxy.Config{
		HTTPProxy: values["HTTP_PROXY"], HTTPSProxy: values["HTTPS_PROXY"], NoProxy: values["NO_PROXY"],
	}).ProxyFunc()
	return func(req *http.Request) (*url.URL, error) { return choose(req.URL) }
}
