package probe

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/libcni"
)

// maxConfigBytes bounds a CNI config file; real ones have a few KiB.
const maxConfigBytes = 1 << 20

// rereadTime is how long a runtime may need to see a file that has come, at most: after it only a restart helps.
const rereadTime = 5 * time.Second

var errNoConfig = errors.New("no CNI config")

// confFiles lists what containerd looks at, in its order. Source: containerd/go-cni opts.go@v1.1.14 loadFromConfDir.
func confFiles(dir string) []string {
	files, err := libcni.ConfFiles(dir, []string{".conf", ".conflist", ".json"})
	if err != nil {
		return nil
	}
	slices.Sort(files)
	return files
}

// LoadCNIConfig returns the first config in alphabetical order that parses. With files of which none parses, the error
// says what is wrong with the first.
func LoadCNIConfig(dir string) (CNINetwork, error) {
	files := confFiles(dir)
	if len(files) == 0 {
		return CNINetwork{}, errNoConfig
	}
	var firstErr error
	for _, file := range files {
		network, err := loadCNIFile(file)
		if err == nil {
			return network, nil
		}
		if firstErr == nil {
			firstErr = err
		}
	}
	return CNINetwork{}, firstErr
}

// loadCNIFile reads one file, and the folder of its network's name beside it: a list may have its plugins there.
func loadCNIFile(file string) (CNINetwork, error) {
	raw, err := readRegular(file, maxConfigBytes)
	if err != nil {
		return CNINetwork{}, err
	}
	list := filepath.Ext(file) == ".conflist"
	config, err := ParseCNIConfig(raw, list)
	if err != nil && !errors.Is(err, errNoPlugin) {
		return CNINetwork{}, fmt.Errorf("parse %s: %w", file, err)
	}
	network := CNINetwork{Name: config.Name}
	for _, plugin := range config.Plugins {
		network.Plugins = append(network.Plugins, plugin.Bytes)
	}
	if list && !config.LoadOnlyInlinedPlugins {
		more, err := loadPluginFolder(filepath.Join(filepath.Dir(file), config.Name))
		if err != nil {
			return CNINetwork{}, fmt.Errorf("parse %s: %w", file, err)
		}
		network.Plugins = append(network.Plugins, more...)
	}
	if len(network.Plugins) == 0 {
		return CNINetwork{}, fmt.Errorf("parse %s: %w", file, errNoPlugin)
	}
	return network, nil
}

// loadPluginFolder reads net.d/NAME/*.conf. Source: containernetworking/cni libcni/conf.go@v1.3.1.
func loadPluginFolder(dir string) ([][]byte, error) {
	files, err := libcni.ConfFiles(dir, []string{".conf"})
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for _, file := range files {
		raw, err := readRegular(file, maxConfigBytes)
		if err != nil {
			return nil, err
		}
		if _, err := libcni.NetworkPluginConfFromBytes(raw); err != nil {
			return nil, fmt.Errorf("parse %s: %w", file, err)
		}
		out = append(out, raw)
	}
	return out, nil
}

var errNoPlugin = errors.New("the list names no plugin")

// ParseCNIConfig parses a conflist, or a single plugin's config, as the container runtime does. For a list of no plugins
// it returns the list and an error.
func ParseCNIConfig(raw []byte, list bool) (*libcni.NetworkConfigList, error) {
	var config *libcni.NetworkConfigList
	if list {
		parsed, err := libcni.NetworkConfFromBytes(raw)
		if err != nil {
			return nil, err
		}
		config = parsed
	} else {
		single, err := libcni.NetworkPluginConfFromBytes(raw)
		if err != nil {
			return nil, err
		}
		if single.Network.Type == "" {
			return nil, errors.New(`missing "type" (is it a list? then name it .conflist)`)
		}
		if config, err = libcni.ConfListFromConf(single); err != nil { //nolint:staticcheck // containerd still takes single configs
			return nil, err
		}
	}
	if len(config.Plugins) == 0 {
		return config, errNoPlugin
	}
	return config, nil
}

// advise says why the runtime has no network, from what lies in the folder.
func (p *CNI) advise(loaded *LoadedCNI, runtime string) Result {
	if loaded != nil && loaded.ConfDir != "" && filepath.Clean(loaded.ConfDir) != filepath.Clean(p.ConfDir) {
		return notReady(ReasonNetworkNotReady, "the container runtime reads %s, and this probe %s: set confDir; it says: %s", loaded.ConfDir, p.ConfDir, runtime)
	}
	files := confFiles(p.ConfDir)
	if len(files) == 0 {
		return notReady(ReasonNoConfig, "no CNI config in %s yet%s", p.ConfDir, renamedAside(p.ConfDir))
	}
	// containerd takes the first, and gives up where that is broken; others pass it by.
	network, err := loadCNIFile(files[0])
	if err != nil && loaded == nil {
		network, err = LoadCNIConfig(p.ConfDir)
	}
	if err != nil {
		return notReady(ReasonInvalidConfig, "%v: write it again, or remove it", err)
	}
	if loaded != nil && loaded.Failure != "" {
		runtime = loaded.Failure
	}
	hint := ""
	if info, err := os.Stat(files[0]); err == nil && time.Since(info.ModTime()) > rereadTime {
		hint = "; the file is good, so the runtime has not read it since: restart containerd"
	}
	return notReady(ReasonNetworkNotReady, "the container runtime has not loaded %s (network %q): %s%s", files[0], network.Name, runtime, hint)
}

// renamedAside names configs that are there under a name that no runtime reads, as Cilium leaves those of others.
func renamedAside(dir string) string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ""
	}
	for _, entry := range entries {
		if name := entry.Name(); !entry.IsDir() && strings.Contains(name, ".conf") {
			return fmt.Sprintf(": %s is there, and its name keeps the runtime from reading it", name)
		}
	}
	return ""
}

// onDisk says whether a file names a plugin that the runtime has not loaded.
func (p *CNI) onDisk(plugin string) string {
	for _, file := range confFiles(p.ConfDir) {
		network, err := loadCNIFile(file)
		if err != nil {
			continue
		}
		for _, name := range network.types(p.ConfDir) {
			if pluginOfType[name] == plugin {
				return fmt.Sprintf(": %s has it, and the runtime has loaded another: if this stays, restart containerd or remove the other", file)
			}
		}
	}
	return ""
}

// maxDelegates bounds how deep delegates are followed.
const maxDelegates = 4

// types are the types of a network's plugins and of those that they delegate to, in order.
func (n CNINetwork) types(confDir string) []string {
	var out []string
	for _, plugin := range n.Plugins {
		out = append(out, pluginTypes(plugin, confDir, maxDelegates)...)
	}
	return out
}

// pluginTypes reads one plugin's config. Multus has what it delegates to inline (delegates), names it (clusterNetwork),
// or, in its thick form, takes the first config of the folder that is not its own.
func pluginTypes(raw []byte, confDir string, depth int) []string {
	var config struct {
		Type           string            `json:"type"`
		Plugins        []json.RawMessage `json:"plugins"`
		Delegates      []json.RawMessage `json:"delegates"`
		Delegate       json.RawMessage   `json:"delegate"`
		ClusterNetwork string            `json:"clusterNetwork"`
	}
	if depth == 0 || json.Unmarshal(raw, &config) != nil {
		return nil
	}
	var out []string
	if config.Type != "" {
		out = append(out, config.Type)
	}
	below := slices.Concat(config.Plugins, config.Delegates)
	if len(config.Delegate) > 0 {
		below = append(below, config.Delegate)
	}
	for _, next := range below {
		out = append(out, pluginTypes(next, confDir, depth-1)...)
	}
	if isMultus(config.Type) && len(config.Delegates) == 0 {
		for _, next := range multusMaster(config.ClusterNetwork, confDir) {
			out = append(out, pluginTypes(next, confDir, depth-1)...)
		}
	}
	return out
}

func isMultus(plugin string) bool { return plugin == "multus" || plugin == "multus-shim" }

// multusMaster finds the network that Multus puts itself before: by the path or the name of the file that it was given,
// else the first that is not its own.
func multusMaster(named, confDir string) [][]byte {
	for _, file := range confFiles(confDir) {
		network, err := loadCNIFile(file)
		if err != nil || slices.ContainsFunc(network.Plugins, ofMultus) {
			continue
		}
		if named == "" || filepath.Base(named) == filepath.Base(file) || named == network.Name {
			return network.Plugins
		}
	}
	return nil
}

func ofMultus(plugin []byte) bool {
	var config struct {
		Type string `json:"type"`
	}
	return json.Unmarshal(plugin, &config) == nil && isMultus(config.Type)
}
