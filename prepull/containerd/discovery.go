package containerd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	introspectionapi "github.com/containerd/containerd/api/services/introspection/v1"
	"github.com/containerd/containerd/v2/plugins"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"headstart.dev/prepull/containerd/internal/registry"
	"headstart.dev/prepull/soci"
)

// defaultHostDirs is what containerd 2.x uses when its config names none, and what an EKS node sets.
// Source: containerd plugins/cri/images/plugin.go@v2.4.2.
const defaultHostDirs = "/etc/containerd/certs.d:/etc/docker/certs.d"

// Discovery is what was found at a containerd, and where it was found.
type Discovery struct {
	// Version of containerd.
	Version string `json:"version"`
	// Snapshotter that images are unpacked into; SnapshotterFrom is flag, cri or default.
	Snapshotter     string `json:"snapshotter"`
	SnapshotterFrom string `json:"snapshotterFrom"`
	// SnapshotterRoot is its folder on the node, "" when it is not known.
	SnapshotterRoot string `json:"snapshotterRoot,omitempty"`
	// Capabilities of the snapshotter, such as rebase.
	Capabilities []string `json:"capabilities,omitempty"`
	// ImageEndpoint is the socket at which the CRI's image service is asked to pull: containerd's, or that of a snapshotter
	// which serves it as well, as SOCI does to learn of the kubelet's credentials.
	ImageEndpoint string `json:"imageEndpoint"`
	// DiscardLayers says that the node does not keep layers' blobs once they are unpacked.
	DiscardLayers bool `json:"discardLayers"`
	// HostDirs are the folders with hosts.toml.
	HostDirs []string `json:"hostDirs"`
	// SettingsFrom says where the last two come from: introspection, configDump, configFile or default.
	SettingsFrom string `json:"settingsFrom"`
}

// discover asks containerd. Only what the CRI says of its snapshotter is trusted before guesses are: images that are
// unpacked into another one are of no use to a pod.
func (n *node) discover(ctx context.Context, snapshotter string) (Discovery, error) {
	version, err := n.client.Version(ctx)
	if err != nil {
		return Discovery{}, fmt.Errorf("ask for its version: %w", err)
	}
	found := Discovery{Version: version.Version}
	resp, err := n.client.IntrospectionService().Plugins(ctx)
	if err != nil {
		return Discovery{}, fmt.Errorf("list its plugins: %w", err)
	}
	if err := found.chooseSnapshotter(ctx, n.cri, resp.Plugins, snapshotter); err != nil {
		return Discovery{}, err
	}
	n.readSettings(ctx, &found, resp.Plugins)
	if err := n.findImageService(ctx, &found, resp.Plugins); err != nil {
		return Discovery{}, err
	}
	return found, nil
}

// overlay says whether layers are directories as overlayfs takes them, for whoever may write there. SOCI's snapshotter is
// one of these for all that it does not mount itself.
func (d Discovery) overlay() bool {
	return d.Snapshotter == "overlayfs" || d.Snapshotter == soci.Snapshotter
}

func (d *Discovery) chooseSnapshotter(ctx context.Context, cri criapi.ImageServiceClient, all []*introspectionapi.Plugin, wanted string) error {
	snapshotters := map[string]*introspectionapi.Plugin{}
	for _, p := range all {
		if p.Type == plugins.SnapshotPlugin.String() && p.InitErr == nil {
			snapshotters[p.ID] = p
		}
	}
	d.Snapshotter, d.SnapshotterFrom = wanted, "flag"
	if wanted == AutoSnapshotter {
		if err := d.askCRI(ctx, cri, snapshotters); err != nil {
			return err
		}
	}
	p, known := snapshotters[d.Snapshotter]
	if !known {
		names := make([]string, 0, len(snapshotters))
		for name := range snapshotters {
			names = append(names, name)
		}
		slices.Sort(names)
		return fmt.Errorf("it has no snapshotter %q; it has %s", d.Snapshotter, strings.Join(names, ", "))
	}
	d.SnapshotterRoot, d.Capabilities = p.Exports["root"], p.Capabilities
	return nil
}

// askCRI matches the file system on which the CRI says it keeps images with the root of a snapshotter.
func (d *Discovery) askCRI(ctx context.Context, cri criapi.ImageServiceClient, snapshotters map[string]*introspectionapi.Plugin) error {
	info, err := cri.ImageFsInfo(ctx, &criapi.ImageFsInfoRequest{})
	if err != nil || len(info.GetImageFilesystems()) == 0 {
		if err == nil {
			err = errors.New("it names no image file system")
		}
		return fmt.Errorf("ask the CRI for its snapshotter: %w; name it with --snapshotter", err)
	}
	root := info.GetImageFilesystems()[0].GetFsId().GetMountpoint()
	for id, p := range snapshotters {
		if p.Exports["root"] == root {
			d.Snapshotter, d.SnapshotterFrom = id, "cri"
			return nil
		}
	}
	// Proxy snapshotters need not export a root; the CRI then makes the folder's name from theirs.
	id := strings.TrimPrefix(filepath.Base(root), plugins.SnapshotPlugin.String()+".")
	if _, known := snapshotters[id]; !known {
		return fmt.Errorf("the CRI keeps images at %s, which is no snapshotter's root; name one with --snapshotter", root)
	}
	d.Snapshotter, d.SnapshotterFrom = id, "cri"
	return nil
}

// readSettings learns what the CRI does with layers' blobs and where hosts.toml lies. It never fails: the defaults keep
// blobs, which costs time and loses nothing.
func (n *node) readSettings(ctx context.Context, d *Discovery, all []*introspectionapi.Plugin) {
	file, fileErr := readConfigFiles(n.configFile(ctx))
	defer func() { n.guards = findGuards(all, file) }()
	for _, p := range all {
		if p.Type == plugins.CRIServicePlugin.String() && p.ID == "images" && p.Exports["DiscardUnpackedLayers"] != "" {
			d.DiscardLayers = p.Exports["DiscardUnpackedLayers"] == "true"
			d.HostDirs = registry.SplitHostDirs(p.Exports["RegistryConfigPath"])
			d.SettingsFrom = "introspection"
			return
		}
	}
	dump, err := n.dumpConfig(ctx)
	if err == nil {
		d.useSettings(dump, "configDump")
		file.registries = file.registries.with(dump.registries)
		file.verifierDir = cmp.Or(dump.verifierDir, file.verifierDir)
		return
	}
	if fileErr == nil {
		file.configPath = cmp.Or(file.configPath, defaultHostDirs)
		d.useSettings(file, "configFile")
		return
	}
	n.log.V(1).Info("containerd's settings are not readable", "reason", errors.Join(err, fileErr).Error())
	d.HostDirs, d.SettingsFrom = registry.SplitHostDirs(defaultHostDirs), "default"
}

func (d *Discovery) useSettings(s criSettings, from string) {
	d.DiscardLayers, d.HostDirs, d.SettingsFrom = s.discard, registry.SplitHostDirs(s.configPath), from
}
