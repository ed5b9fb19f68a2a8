package containerd

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// criSettings is the part of containerd's config that a pull has to follow.
type criSettings struct {
	discard     bool
	configPath  string
	registries  registryRules
	imports     []string
	verifierDir string
	// Where containerd is going to be, and what the CRI unpacks into: asked of the config only while containerd is not up.
	root, address, snapshotter, overlayRoot string
}

// dumpConfig asks containerd's own binary for the config that it runs with: of the servers before 2.4 none tells it over
// its socket. Binary and arguments are those of the running process.
func (n *node) dumpConfig(ctx context.Context) (criSettings, error) {
	server, err := n.client.IntrospectionService().Server(ctx)
	if err != nil {
		return criSettings{}, fmt.Errorf("ask containerd for its process: %w", err)
	}
	proc, cmdline, err := processOf(server.Pid, server.Pidns)
	if err != nil {
		return criSettings{}, err
	}
	args := append(configFlag(cmdline), "config", "dump")
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, programOf(proc, cmdline), args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return criSettings{}, fmt.Errorf("run containerd %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return parseConfigDump(out)
}

// processOf returns where a process shows itself, and its command line.
func processOf(pid, pidns uint64) (proc string, cmdline []string, err error) {
	proc = fmt.Sprintf("/proc/%d", pid)
	ns, err := os.Stat("/proc/self/ns/pid")
	if err != nil {
		return "", nil, fmt.Errorf("find containerd's process: %w", err)
	}
	if inode := inodeOf(ns); inode == 0 || inode != pidns {
		return "", nil, errors.New("containerd runs in another PID namespace")
	}
	line, err := os.ReadFile(proc + "/cmdline")
	if err != nil {
		return "", nil, fmt.Errorf("find containerd's process: %w", err)
	}
	return proc, strings.Split(string(bytes.TrimRight(line, "\x00")), "\x00"), nil
}

// programOf returns the program of a process: the very file that runs or, where only a process with all of its capabilities
// may look at that, the one that its command line names.
func programOf(proc string, cmdline []string) string {
	if f, err := os.Open(proc + "/exe"); err == nil {
		_ = f.Close()
		return proc + "/exe"
	}
	if filepath.IsAbs(cmdline[0]) {
		return cmdline[0]
	}
	return filepath.Base(cmdline[0])
}

// configFlag returns the flag by which a containerd was given its config, nothing when it runs on the default file.
func configFlag(cmdline []string) []string {
	for i, arg := range cmdline {
		name, value, inline := strings.Cut(arg, "=")
		switch {
		case name != "--config" && name != "-config" && name != "-c" && name != "--c":
		case inline:
			return []string{"--config", value}
		case i+1 < len(cmdline):
			return []string{"--config", cmdline[i+1]}
		}
	}
	return nil
}

// parseConfigDump reads both forms: version 3 (containerd 2.x) and version 2 (1.7).
func parseConfigDump(data []byte) (criSettings, error) {
	type registryConfig struct {
		ConfigPath string         `toml:"config_path"`
		Mirrors    map[string]any `toml:"mirrors"`
		Configs    map[string]any `toml:"configs"`
		Auths      map[string]any `toml:"auths"`
		Headers    map[string]any `toml:"headers"`
	}
	type grpcConfig struct {
		Address string `toml:"address"`
	}
	var dump struct {
		Imports []string   `toml:"imports"`
		Root    string     `toml:"root"`
		GRPC    grpcConfig `toml:"grpc"`
		Plugins struct {
			V3 struct {
				Discard     bool           `toml:"discard_unpacked_layers"`
				Snapshotter string         `toml:"snapshotter"`
				Registry    registryConfig `toml:"registry"`
			} `toml:"io.containerd.cri.v1.images"`
			V2 struct {
				Containerd struct {
					Discard     bool   `toml:"discard_unpacked_layers"`
					Snapshotter string `toml:"snapshotter"`
				} `toml:"containerd"`
				Registry registryConfig `toml:"registry"`
			} `toml:"io.containerd.grpc.v1.cri"`
			GRPC    grpcConfig `toml:"io.containerd.server.v1.grpc"`
			Overlay struct {
				Root string `toml:"root_path"`
			} `toml:"io.containerd.snapshotter.v1.overlayfs"`
			Verifier struct {
				BinDir string `toml:"bin_dir"`
			} `toml:"io.containerd.image-verifier.v1.bindir"`
		} `toml:"plugins"`
	}
	if err := toml.Unmarshal(data, &dump); err != nil {
		return criSettings{}, fmt.Errorf("parse containerd's config dump: %w", err)
	}
	var rules registryRules
	for _, r := range []registryConfig{dump.Plugins.V2.Registry, dump.Plugins.V3.Registry} {
		rules = rules.with(registryRules{mirrors: r.Mirrors, configs: r.Configs, auths: r.Auths, headers: r.Headers})
	}
	s := criSettings{
		imports: dump.Imports, registries: rules, verifierDir: dump.Plugins.Verifier.BinDir,
		discard:    dump.Plugins.V3.Discard || dump.Plugins.V2.Containerd.Discard,
		configPath: cmp.Or(dump.Plugins.V3.Registry.ConfigPath, dump.Plugins.V2.Registry.ConfigPath),
		root:       dump.Root, overlayRoot: dump.Plugins.Overlay.Root,
		address:     cmp.Or(dump.Plugins.GRPC.Address, dump.GRPC.Address),
		snapshotter: cmp.Or(dump.Plugins.V3.Snapshotter, dump.Plugins.V2.Containerd.Snapshotter),
	}
	return s, nil
}
