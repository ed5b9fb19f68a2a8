package kubelet

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"headstart.dev/agent/timeline"
)

// ErrNotRunning means that no kubelet runs on this node.
var ErrNotRunning = errors.New("no kubelet runs")

// NodeName is the name that the kubelet registers under: its --hostname-override where one runs and was given that, else
// the host's name in lower case.
func NodeName() (string, error) {
	if args, _, err := find(); err == nil {
		if name := flag(args, "hostname-override"); name != "" {
			return strings.ToLower(name), nil
		}
	}
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("read host name: %w", err)
	}
	return strings.ToLower(strings.TrimSpace(name)), nil
}

// ProcessStart is when the kubelet that runs was started.
func ProcessStart() (time.Time, error) {
	_, pid, err := find()
	if err != nil {
		return time.Time{}, err
	}
	return timeline.ProcessStart(pid)
}

// find looks for the kubelet's process.
func find() (args []string, pid int, err error) {
	files, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return nil, 0, fmt.Errorf("list processes: %w", err)
	}
	for _, file := range files {
		// Processes come and go while we look.
		if comm, err := os.ReadFile(file); err != nil || strings.TrimSpace(string(comm)) != "kubelet" {
			continue
		}
		dir := filepath.Dir(file)
		raw, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			continue
		}
		if pid, err = strconv.Atoi(filepath.Base(dir)); err == nil {
			return strings.Split(strings.TrimRight(string(raw), "\x00"), "\x00"), pid, nil
		}
	}
	return nil, 0, ErrNotRunning
}

// flag returns the value of --name=value or --name value.
func flag(args []string, name string) string {
	for i, arg := range args {
		if value, ok := strings.CutPrefix(arg, "--"+name+"="); ok {
			return value
		}
		if arg == "--"+name && i+1 < len(args) {
			return args[i+1]
		}
	}
	return ""
}

// SocketOwnerStart is when the process that listens on a unix socket was started.
func SocketOwnerStart(path string) (time.Time, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return time.Time{}, fmt.Errorf("ask who listens on %s: %w", path, err)
	}
	defer func() { _ = conn.Close() }()
	raw, err := conn.SyscallConn()
	if err != nil {
		return time.Time{}, fmt.Errorf("ask who listens on %s: %w", path, err)
	}
	var peer *unix.Ucred
	var peerErr error
	if err := raw.Control(func(fd uintptr) { peer, peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return time.Time{}, fmt.Errorf("ask who listens on %s: %w", path, err)
	}
	if peerErr != nil {
		return time.Time{}, fmt.Errorf("ask who listens on %s: %w", path, peerErr)
	}
	return timeline.ProcessStart(int(peer.Pid))
}
