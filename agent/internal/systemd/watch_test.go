package systemd_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"headstart.dev/agent/internal/systemd"
)

// notifySocket plays systemd's end of sd_notify.
func notifySocket(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return conn
}

func receive(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	buf := make([]byte, 256)
	n, err := conn.Read(buf)
	require.NoError(t, err)
	return string(buf[:n])
}

func TestWatchTellsSystemdForAsLongAsTheAgentLives(t *testing.T) {
	conn := notifySocket(t)
	t.Setenv("WATCHDOG_USEC", "20000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	asked := 0
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		systemd.Watch(ctx, func() { asked++ })
	}()
	for range 3 {
		require.Equal(t, "WATCHDOG=1", receive(t, conn))
	}
	cancel()
	<-ended
	require.GreaterOrEqual(t, asked, 3, "no word without a sign of life")
}

func TestWatchEndsWithoutAWatchdog(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "")
	systemd.Watch(t.Context(), func() { t.Error("nobody asked for signs of life") })
}
