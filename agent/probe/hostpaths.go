package probe

import (
	"path/filepath"
	"strings"
)

// HostPather is a Checker that looks at files of the host. In a container it sees only those folders that are mounted there.
type HostPather interface {
	// HostPaths are the folders, absolute, under the paths by which the Checker looks at them. Nothing is written there.
	HostPaths() []string
}

// dbusDir is where the system bus listens.
const dbusDir = "/run/dbus"

// HostPaths is where the conflist appears, and the sockets of the plugins that it may ask.
func (p *CNI) HostPaths() []string {
	dirs := []string{p.ConfDir}
	if socket := p.Endpoints.VPCCNISocket; socket != "" && (p.Plugin == PluginAuto || p.Plugin == PluginVPCCNI) {
		dirs = append(dirs, filepath.Dir(socket))
	}
	if socket := p.Endpoints.CiliumSocket; socket != "" && (p.Plugin == PluginAuto || p.Plugin == PluginCilium) {
		dirs = append(dirs, filepath.Dir(socket))
	}
	return dirs
}

// HostPaths is where drivers and their registrars listen.
func (p *CSI) HostPaths() []string {
	return []string{filepath.Join(p.KubeletDir, "plugins"), filepath.Join(p.KubeletDir, "plugins_registry")}
}

// HostPaths is where device plugins register, what the kubelet hands out, what the operator has validated, and systemd.
func (p *GPU) HostPaths() []string {
	return []string{
		filepath.Join(p.KubeletDir, "device-plugins"), filepath.Join(p.KubeletDir, "pod-resources"),
		filepath.Dir(p.ValidationsDir), dbusDir,
	}
}

// HostPaths is where the device files are. /sys is in every container.
func (p *EFA) HostPaths() []string { return []string{p.verbsDir()} }

// HostPaths is where device plugins register, and what the kubelet hands out. /sys is in every container.
func (p *Neuron) HostPaths() []string {
	return []string{filepath.Join(p.KubeletDir, "device-plugins"), filepath.Join(p.KubeletDir, "pod-resources")}
}

// HostPaths is where drivers and their registrars listen.
func (p *DRA) HostPaths() []string {
	return []string{filepath.Join(p.KubeletDir, "plugins"), filepath.Join(p.KubeletDir, "plugins_registry")}
}

// HostPaths is where systemd answers.
func (p *Systemd) HostPaths() []string { return []string{dbusDir} }

// HostPaths is the socket's folder, not the socket: its server makes a new one when it starts.
func (p *Unix) HostPaths() []string { return []string{filepath.Dir(p.Path)} }

// HostPaths is the file's folder: the file may come later.
func (p *File) HostPaths() []string { return []string{filepath.Dir(p.Path)} }

// HostPaths is the socket's folder, if it is one.
func (p *GRPC) HostPaths() []string {
	if path, ok := strings.CutPrefix(p.Address, "unix://"); ok {
		return []string{filepath.Dir(path)}
	}
	return nil
}

// HostPaths is the program's folder. What the program itself needs nobody can know.
func (p *Exec) HostPaths() []string { return []string{filepath.Dir(p.Command[0])} }
