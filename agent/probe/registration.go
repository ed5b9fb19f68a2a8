package probe

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// registryDir is where plugins offer themselves to the kubelet, below its root folder.
const registryDir = "plugins_registry"

// maxRegistrations bounds how many sockets are asked.
const maxRegistrations = 64

// registration is what a plugin offers to the kubelet.
type registration struct {
	socket string
	// identity changes with the plugin's process: the socket's inode and times.
	identity string
	// endpoint is where the plugin answers, a path; empty where it does not say.
	endpoint string
}

// pluginInfo is what a registration's socket answered. A registrar takes the question for the kubelet's, and believes
// from then on that the kubelet knows it: it is asked once.
type pluginInfo struct {
	identity string
	info     *registerapi.PluginInfo
}

// askedInfo remembers answers by socket, for all probes of the process.
var askedInfo sync.Map

// findRegistration looks for the plugin of a type and name: at the usual name of its socket, then at every other.
func findRegistration(ctx context.Context, kubeletDir, pluginType, name string) (registration, Result) {
	usual := filepath.Join(kubeletDir, registryDir, name+"-reg.sock")
	found, result := askRegistration(ctx, usual, pluginType, name)
	if result.Status == True {
		return found, result
	}
	sockets := registrationSockets(filepath.Join(kubeletDir, registryDir), usual)
	if len(sockets) == 0 {
		return registration{}, result
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		registration
		Result
	}
	answers := make(chan answer, len(sockets))
	for _, socket := range sockets {
		go func() {
			found, result := askRegistration(ctx, socket, pluginType, name)
			answers <- answer{found, result}
		}()
	}
	for range sockets {
		a := <-answers
		switch {
		case a.Status == True:
			return a.registration, a.Result
		case a.Reason == ReasonTimeout:
			result = a.Result
		}
	}
	return registration{}, result
}

// askRegistration asks one socket. That of another plugin is NotRegistered.
func askRegistration(ctx context.Context, socket, pluginType, name string) (registration, Result) {
	address := "unix://" + socket
	identity, err := fileIdentity(socket)
	if err != nil {
		return registration{}, notReady(ReasonNotRegistered, "%s", dialFailure(address, err).Message)
	}
	// It must listen, even where it need not be asked again.
	listens, err := dial(ctx, address)
	if err != nil {
		return registration{}, notReady(ReasonNotRegistered, "%s", dialFailure(address, err).Message)
	}
	_ = listens.Close()
	known, _ := askedInfo.Load(socket)
	last, ok := known.(pluginInfo)
	if !ok || last.identity != identity {
		info, err := getInfo(ctx, address)
		if err != nil {
			return registration{}, grpcFailure(address, err)
		}
		last = pluginInfo{identity: identity, info: info}
		askedInfo.Store(socket, last)
	}
	if last.info.GetType() != pluginType || last.info.GetName() != name {
		return registration{}, notReady(ReasonNotRegistered, "%s registers %s %q", address, last.info.GetType(), last.info.GetName())
	}
	return registration{socket: socket, identity: identity, endpoint: strings.TrimPrefix(last.info.GetEndpoint(), "unix://")}, ready("")
}

func getInfo(ctx context.Context, address string) (*registerapi.PluginInfo, error) {
	conn, err := dialGRPC(ctx, address)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	return registerapi.NewRegistrationClient(conn).GetInfo(ctx, &registerapi.InfoRequest{})
}

// fileIdentity changes when a file is made anew.
func fileIdentity(path string) (string, error) {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return "", &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return fmt.Sprintf("%s %d %d %d.%d", path, stat.Dev, stat.Ino, stat.Ctim.Sec, stat.Ctim.Nsec), nil
}

// registrationSockets lists the sockets below a folder, as the kubelet's plugin watcher does, but for one.
func registrationSockets(dir, but string) []string {
	var out []string
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // it has gone meanwhile
		}
		if entry.Type()&fs.ModeSocket != 0 && path != but && len(out) < maxRegistrations {
			out = append(out, path)
		}
		return nil
	})
	return out
}
