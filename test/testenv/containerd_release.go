package testenv

import (
	"context"
	"io"
	"text/template"

	"headstart.dev/test/testenv/internal/binaries"
)

// ContainerdRelease is a line of containerd's releases; the empty one is the newest.
type ContainerdRelease string

// The releases that the testbed builds beside the newest.
const (
	// Containerd17 is the oldest line that is still looked after.
	Containerd17 ContainerdRelease = "1.7"
	// Containerd22 is what Amazon Linux 2023 ships.
	Containerd22 ContainerdRelease = "2.2"
)

// release is how one line is built and set up.
type release struct {
	ensure func(ctx context.Context, progress io.Writer) (binDir string, err error)
	config *template.Template
}

var releases = map[ContainerdRelease]release{
	"": {config: configVersion3, ensure: func(ctx context.Context, progress io.Writer) (string, error) {
		return binaries.Ensure(ctx, progress, binaries.Containerd, binaries.Shim)
	}},
	Containerd22: {config: configVersion3, ensure: binaries.Containerd22.Ensure},
	Containerd17: {config: configVersion2, ensure: binaries.Containerd17.Ensure},
}

// configVersion3 is the configuration of containerd 2. restrict_oom_score_adj: containers must start on machines without
// CAP_SYS_RESOURCE. netns_mounts_under_state_dir and runc's Root: nothing may lie outside the workspace. The
// disabled plugins have sockets or devices outside it.
var configVersion3 = template.Must(template.New("containerd 2").Parse(`version = 3
root = '{{.Disk}}/root'
state = '{{.Dir}}/state'
disabled_plugins = [
  'io.containerd.nri.v1.nri', 'io.containerd.snapshotter.v1.btrfs', 'io.containerd.snapshotter.v1.zfs',
  'io.containerd.snapshotter.v1.devmapper', 'io.containerd.snapshotter.v1.blockfile', 'io.containerd.snapshotter.v1.erofs',
  'io.containerd.tracing.processor.v1.otlp',
]

[grpc]
address = '{{.Dir}}/containerd.sock'

[plugins.'io.containerd.internal.v1.opt']
path = '{{.Dir}}/opt'

[plugins.'io.containerd.cri.v1.images']
snapshotter = '{{.Snapshotter}}'
discard_unpacked_layers = {{.Discard}}
disable_snapshot_annotations = {{not .SOCI}}
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{{.Pause}}'
[plugins.'io.containerd.cri.v1.images'.registry]
config_path = '{{.Dir}}/certs.d'

[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['{{.CNIBinDir}}']
conf_dir = '{{.Dir}}/cni'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = 'runc'
Root = '{{.Dir}}/runc'
SystemdCgroup = false
{{if .SOCI -}}
[proxy_plugins.soci]
type = 'snapshot'
address = '{{.Dir}}/soci.sock'
[proxy_plugins.soci.exports]
root = '{{.Disk}}/soci'
enable_remote_snapshot_annotations = 'true'
{{end -}}
{{.Extra}}
`))

// configVersion2 is the same for containerd 1.7.
var configVersion2 = template.Must(template.New("containerd 1").Parse(`version = 2
root = '{{.Disk}}/root'
state = '{{.Dir}}/state'
disabled_plugins = [
  'io.containerd.nri.v1.nri', 'io.containerd.snapshotter.v1.btrfs', 'io.containerd.snapshotter.v1.zfs',
  'io.containerd.snapshotter.v1.devmapper', 'io.containerd.snapshotter.v1.blockfile', 'io.containerd.tracing.processor.v1.otlp',
]

[grpc]
address = '{{.Dir}}/containerd.sock'

[plugins.'io.containerd.internal.v1.opt']
path = '{{.Dir}}/opt'

[plugins.'io.containerd.grpc.v1.cri']
sandbox_image = '{{.Pause}}'
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins.'io.containerd.grpc.v1.cri'.registry]
config_path = '{{.Dir}}/certs.d'
[plugins.'io.containerd.grpc.v1.cri'.cni]
bin_dir = '{{.CNIBinDir}}'
conf_dir = '{{.Dir}}/cni'
[plugins.'io.containerd.grpc.v1.cri'.containerd]
snapshotter = '{{.Snapshotter}}'
discard_unpacked_layers = {{.Discard}}
disable_snapshot_annotations = {{not .SOCI}}
[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc.options]
BinaryName = 'runc'
Root = '{{.Dir}}/runc'
SystemdCgroup = false
{{if .SOCI -}}
[proxy_plugins.soci]
type = 'snapshot'
address = '{{.Dir}}/soci.sock'
[proxy_plugins.soci.exports]
root = '{{.Disk}}/soci'
{{end -}}
{{.Extra}}
`))
