package userdata_test

import (
	"errors"
	"io"
	"mime/multipart"
	"net"
	"net/mail"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"headstart.dev/deploy/userdata"
	"headstart.dev/test/testenv"
)

// The AL2023 order: nodeadm-config (before cloud-init), cloud-final with the user's scripts, nodeadm-run.
// Source: awslabs/amazon-eks-ami templates/al2023/runtime/rootfs/etc/systemd/system/nodeadm-{config,run}.service.
const (
	nodeadmConfig = `[Unit]
Before=cloud-final.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/nodeadm config
[Install]
WantedBy=multi-user.target
`
	cloudFinal = `[Unit]
After=nodeadm-config.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'for part in /var/lib/cloud/scripts/*; do [ ! -x "$part" ] || "$part"; done'
[Install]
WantedBy=multi-user.target
`
	nodeadmRun = `[Unit]
After=nodeadm-config.service cloud-final.service
Requires=nodeadm-config.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/nodeadm run
[Install]
WantedBy=multi-user.target
`
	containerdUnit = `[Unit]
After=network.target
[Service]
Type=notify
Environment=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ExecStart=/usr/bin/containerd
Delegate=yes
KillMode=process
Restart=always
[Install]
WantedBy=multi-user.target
`
	// The kubelet runs alone, without an API server: what counts is when it starts.
	kubeletUnit = `[Unit]
After=containerd.service
Requires=containerd.service
[Service]
Type=notify
ExecStart=/usr/bin/kubelet --config=/etc/kubernetes/kubelet/config.json --hostname-override=node-1
Restart=always
[Install]
WantedBy=multi-user.target
`
	// nodeadm does what nodeadm does at these two points, RAID0 of local disks included: stop containerd, copy what it has
	// to the array, mount the array over it. It notes what was there, which is what would have been copied.
	nodeadm = `#!/bin/sh
set -eu
case "$1" in
config) mkdir -p /var/lib/containerd ;;
run)
  find /var/lib/containerd -mindepth 1 | wc -l >/run/copied-to-array
  if [ -d /mnt/k8s-disks/0 ]; then
    systemctl stop containerd.service
    mkdir -p /mnt/k8s-disks/0/containerd
    cp -a /var/lib/containerd/. /mnt/k8s-disks/0/containerd/
    mount --bind /mnt/k8s-disks/0/containerd /var/lib/containerd
  fi
  systemctl restart containerd.service
  systemctl start kubelet.service
  ;;
esac
`
	kubeletConfig = `{
  "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
  "address": "127.0.0.1", "port": %PORT%, "healthzPort": 0, "readOnlyPort": 0,
  "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}}, "authorization": {"mode": "AlwaysAllow"},
  "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock", "cgroupDriver": "cgroupfs",
  "cgroupsPerQOS": false, "enforceNodeAllocatable": [], "localStorageCapacityIsolation": false,
  "failSwapOn": false, "failCgroupV1": false, "evictionHard": {}, "registerNode": false
}
`
)

// al2023 is a root that boots as an AL2023 instance with this userData does; "" boots one without any.
func al2023(t *testing.T, userData string, registries ...string) string {
	t.Helper()
	return al2023In(t, overlay(t, debian(t)), userData, registries...)
}

// al2023In makes a Debian root one.
func al2023In(t *testing.T, root, userData string, registries ...string) string {
	t.Helper()
	bin, err := testenv.Binaries(t.Context(), "containerd", "containerd-shim-runc-v2", "ctr", "kubelet")
	require.NoError(t, err)
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "ctr", "kubelet"} {
		copyInto(t.Context(), t, root, filepath.Join(bin, name), "/usr/bin/"+name)
	}
	write(t, root, "/etc/hostname", "node-1\n", 0o644)
	write(t, root, "/usr/bin/nodeadm", nodeadm, 0o755)
	write(t, root, "/etc/kubernetes/kubelet/config.json", strings.ReplaceAll(kubeletConfig, "%PORT%", strconv.Itoa(freePort(t))), 0o644)
	write(t, root, "/etc/containerd/config.toml", "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/etc/containerd/certs.d'\n", 0o644)
	for _, host := range registries {
		write(t, root, "/etc/containerd/certs.d/"+host+"/hosts.toml", "server = 'http://"+host+"'\n[host.'http://"+host+"']\n", 0o644)
	}
	units := map[string]string{
		"nodeadm-config.service": nodeadmConfig, "cloud-final.service": cloudFinal, "nodeadm-run.service": nodeadmRun,
		"containerd.service": containerdUnit, "kubelet.service": kubeletUnit,
	}
	for name, text := range units {
		write(t, root, "/etc/systemd/system/"+name, text, 0o644)
	}
	wants := filepath.Join(root, "/etc/systemd/system/multi-user.target.wants")
	require.NoError(t, os.MkdirAll(wants, 0o755))
	for _, name := range []string{"nodeadm-config.service", "cloud-final.service", "nodeadm-run.service"} {
		require.NoError(t, os.Symlink("../"+name, filepath.Join(wants, name)))
	}
	for i, script := range shellParts(t, userData) {
		write(t, root, "/var/lib/cloud/scripts/part-00"+strconv.Itoa(i+1), script, 0o700)
	}
	return root
}

// freePort is one that nobody listens on now.
func freePort(t *testing.T) int {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = listener.Close() }()
	addr, ok := listener.Addr().(*net.TCPAddr)
	require.True(t, ok)
	return addr.Port
}

// shellParts are what cloud-init runs of the userData.
func shellParts(t *testing.T, userData string) []string {
	t.Helper()
	if userData == "" {
		return nil
	}
	msg, err := mail.ReadMessage(strings.NewReader(userData))
	require.NoError(t, err)
	_, boundary, ok := strings.Cut(msg.Header.Get("Content-Type"), `boundary="`)
	require.True(t, ok)
	parts := multipart.NewReader(msg.Body, strings.TrimSuffix(boundary, `"`))
	var scripts []string
	for {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			return scripts
		}
		require.NoError(t, err)
		text, err := io.ReadAll(part)
		require.NoError(t, err)
		if strings.HasPrefix(part.Header.Get("Content-Type"), "text/x-shellscript") {
			scripts = append(scripts, string(text))
		}
	}
}

func render(t *testing.T, values string) string {
	t.Helper()
	v, err := userdata.Parse([]byte(values))
	require.NoError(t, err)
	out, err := userdata.Render(userdata.AL2023, v)
	require.NoError(t, err)
	return out
}
