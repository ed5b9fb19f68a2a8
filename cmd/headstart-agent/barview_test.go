package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"headstart.dev/prepull"
)

// terminal opens a terminal of a size. read returns all that it was sent, once it is closed.
func terminal(t *testing.T, columns, rows uint16) (tty *os.File, read func() string) {
	t.Helper()
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = ptmx.Close() })
	fd := int(ptmx.Fd())
	require.NoError(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	require.NoError(t, err)
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	require.NoError(t, err)
	require.NoError(t, unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}))
	var sent bytes.Buffer
	ended := make(chan error, 1)
	go func() {
		_, err := sent.ReadFrom(ptmx)
		ended <- err
	}()
	return tty, func() string {
		require.NoError(t, tty.Close())
		err := <-ended
		require.True(t, err == nil || errors.Is(err, syscall.EIO), "%v", err)
		return strings.ReplaceAll(sent.String(), "\r\n", "\n")
	}
}

// pulling is an image under way.
func pulling(name string, done int64) prepull.ImageStatus {
	return prepull.ImageStatus{Name: name, State: prepull.StatePulling, DoneBytes: done << 20, TotalBytes: 100 << 20, Started: time.Unix(1000, 0)}
}

func ended(s prepull.ImageStatus, state prepull.State, reason string) prepull.ImageStatus {
	s.State, s.Error, s.Engine, s.DoneBytes, s.FetchedBytes, s.Finished = state, reason, "direct", s.TotalBytes, s.TotalBytes, time.Unix(1003, 0)
	return s
}

// redraw is longer than the view leaves between two frames.
const redraw = 400 * time.Millisecond

func TestBarsOnATerminal(t *testing.T) {
	t.Setenv("TERM", "xterm")
	tty, read := terminal(t, 100, 24)
	v := newPullView("text", tty, tty)
	require.IsType(t, &barView{}, v)
	web, big := pulling("docker.io/library/web:v1", 50), pulling("registry.example/big:v2", 100)
	v.observe(web)
	v.observe(big)
	<-time.After(redraw)
	broken := big
	broken.Error = "connection reset"
	v.observe(broken)
	v.observe(ended(web, prepull.StateWarm, ""))
	<-time.After(redraw)
	v.observe(ended(web, prepull.StateLazy, "")) // a late word, as of a background fetch
	v.finish([]prepull.ImageStatus{ended(web, prepull.StateWarm, ""), ended(big, prepull.StateFailed, "gone")}, nil)
	text := read()

	require.Contains(t, text, "docker.io/library/web:v1 [============            ] 50 MiB of 100 MiB\n", "half of the bytes, half of the bar")
	require.Contains(t, text, "registry.example/big:v2  [========================] 100 MiB of 100 MiB\n", "all bytes there, not yet an image")
	require.Contains(t, text, "trying again: connection reset\n")
	require.Equal(t, 1, strings.Count(text, "docker.io/library/web:v1 warm in 3s, 100 MiB fetched of 100 MiB, engine direct\n"))
	require.Equal(t, 1, strings.Count(text, "registry.example/big:v2 failed: gone\n"))
	require.True(t, strings.HasSuffix(text, "\x1b[J"), "what is left of the bars is wiped away: %q", text)
	require.NotRegexp(t, `\x1b\[[0-9;]*m`, text, "no colours, whatever NO_COLOR says")
}

func TestBarsSurviveANarrowTerminal(t *testing.T) {
	t.Setenv("TERM", "xterm")
	for _, size := range [][2]uint16{{30, 24}, {5, 3}, {1, 1}, {0, 0}} {
		t.Run(fmt.Sprintf("%d columns, %d rows", size[0], size[1]), func(t *testing.T) {
			tty, read := terminal(t, size[0], size[1])
			v := newPullView("text", tty, tty)
			statuses := make([]prepull.ImageStatus, 5)
			for i := range statuses {
				statuses[i] = pulling(fmt.Sprintf("registry.example/some/long/name/of-an-image:v%d", i), 30)
				v.observe(statuses[i])
			}
			<-time.After(redraw)
			for i := range statuses {
				statuses[i] = ended(statuses[i], prepull.StateWarm, "")
			}
			v.finish(statuses, nil)
			text := read()
			for i := range statuses {
				require.Equal(t, 1, strings.Count(text, describe(statuses[i])+"\n"), "%q", text)
			}
			for line := range strings.SplitSeq(text, "\n") {
				if strings.Contains(line, "warm in") {
					continue // the terminal wraps what is written once
				}
				_, drawn, found := strings.Cut(line, "\x1b[J")
				if !found {
					drawn = line
				}
				require.LessOrEqual(t, len([]rune(drawn)), int(size[0]), "a wrapped bar would not be drawn over: %q", line)
			}
		})
	}
}

func TestLinesWhereNoBarCanBe(t *testing.T) {
	t.Setenv("TERM", "dumb")
	tty, read := terminal(t, 100, 24)
	v := newPullView("text", tty, tty)
	web := pulling("docker.io/library/web:v1", 50)
	v.observe(web)
	v.observe(ended(web, prepull.StateWarm, ""))
	v.finish([]prepull.ImageStatus{ended(web, prepull.StateWarm, "")}, nil)
	require.Equal(t, "docker.io/library/web:v1 warm in 3s, 100 MiB fetched of 100 MiB, engine direct\n", read())
	require.IsType(t, &lineView{}, newPullView("text", &bytes.Buffer{}, &bytes.Buffer{}))
}

func TestBarsOutliveTheirTerminal(t *testing.T) {
	t.Setenv("TERM", "xterm")
	tty, read := terminal(t, 100, 24)
	v := newPullView("text", tty, tty)
	web := pulling("docker.io/library/web:v1", 50)
	v.observe(web)
	read()
	<-time.After(redraw)
	v.observe(pulling("docker.io/library/late:v1", 1))
	v.observe(ended(web, prepull.StateWarm, ""))
	v.finish([]prepull.ImageStatus{ended(web, prepull.StateWarm, ""), pulling("docker.io/library/late:v1", 1)}, nil)
}
