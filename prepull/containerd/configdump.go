package containerd

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// criSettings is the part of containerd's config that a pull has to follow.
type criSettings struct {
	discard    bool
	configPath string
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
	proc := fmt.Sprintf("/proc/%d", server.Pid)
	ns, err := os.Stat("/proc/self/ns/pid")
	if err != nil {
		return criSettings{}, fmt.Errorf("find containerd's process: %w", err)
	}
	if inode := inodeOf(ns); inode == 0 || inode != server.Pidns {
		return criSettings{}, errors.New("containerd runs in another PID namespace")
	}
	cmdline, err := os.ReadFile(proc + "/cmdline")
	if err != nil {
		return criSettings{}, fmt.Errorf("find containerd's process: %w", err)
	}
	args := append(configFlag(strings.Split(string(bytes.TrimRight(cmdline, "\x00")), "\x00")), "config", "dump")
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, proc+"/exe", args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return criSettings{}, fmt.Errorf("run containerd %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return parseConfigDump(out)
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
		ConfigPath string `toml:"config_path"`
	}
	type grpcConfig struct {
		Address string `toml:"address"`
	}
	var dump struct {
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
		} `toml:"plugins"`
	}
	if err := toml.Unmarshal(data, &dump); err != nil {
		return criSettings{}, fmt.Errorf("parse containerd's config dump: %w", err)
	}
	s := criSettings{
		discard:    dump.Plugins.V3.Discard || dump.Plugins.V2.Containerd.Discard,
		configPath: cmp.Or(dump.Plugins.V3.Registry.ConfigPath, dump.Plugins.V2.Registry.ConfigPath),
		root:       dump.Root, overlayRoot: dump.Plugins.Overlay.Root,
		address:     cmp.Or(dump.Plugins.GRPC.Address, dump.GRPC.Address),
		snapshotter: cmp.Or(dump.Plugins.V3.Snapshotter, dump.Plugins.V2.Containerd.Snapshotter),
	}
	return s, nil
}
