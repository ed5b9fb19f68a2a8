package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"headstart.dev/test/testenv/faultproxy"
)

// fault is one way in which a pull is broken.
type fault struct {
	name string
	// bar says how many bytes may come twice.
	bar func(*world) (text string, bytes int64)
	// proxy breaks answers for layers, or for manifests.
	proxy     []faultproxy.Fault
	manifests bool
	// bandwidth is what all connections bring together, in bytes a second; 0 is no limit.
	bandwidth int64
	// run pulls the image, and breaks what is not the registry; nil is one undisturbed agent.
	run func(context.Context, *world) error
}

func nothing(*world) (string, int64)    { return "0", 0 }
func oneRange(*world) (string, int64)   { return "a range", rangeBytes }
func oneLayer(w *world) (string, int64) { return "a layer", w.largest }
func allOfIt(w *world) (string, int64)  { return "none", 2 * w.total }
func ranges(n int) func(*world) (string, int64) {
	return func(*world) (string, int64) { return fmt.Sprintf("%d ranges", n), int64(n) * rangeBytes }
}

func faults() []fault {
	challenge := http.Header{"Www-Authenticate": {`Basic realm="bench"`}}
	return []fault{
		{name: "none", bar: nothing},
		{name: "a connection is reset in mid-range", bar: oneRange, proxy: []faultproxy.Fault{{Times: 1, After: 5 * mib, Reset: true}}},
		{name: "six connections are reset", bar: ranges(6), proxy: []faultproxy.Fault{{Times: 6, After: 3 * mib, Reset: true}}},
		{name: "a body ends early", bar: oneRange, proxy: []faultproxy.Fault{{Times: 1, After: 3 * mib, Truncate: true}}},
		{name: "a connection goes silent", bar: oneRange, proxy: []faultproxy.Fault{{Times: 1, After: 2 * mib, Hang: true}}},
		{name: "a connection of 64 KiB/s", bar: oneRange, proxy: []faultproxy.Fault{{Times: 1, BytesPerSecond: 64 << 10}}},
		{name: "500 and 503, three times each", bar: nothing, proxy: []faultproxy.Fault{
			{Times: 3, Status: http.StatusInternalServerError}, {Times: 3, Status: http.StatusServiceUnavailable},
		}},
		{name: "429 with Retry-After: 2, four times", bar: nothing, proxy: []faultproxy.Fault{
			{Times: 4, Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"2"}}},
		}},
		{name: "502 for the manifest, twice", bar: nothing, manifests: true, proxy: []faultproxy.Fault{{Times: 2, Status: http.StatusBadGateway}}},
		{name: "401 in mid-pull", bar: nothing, proxy: []faultproxy.Fault{{Times: 1, Status: http.StatusUnauthorized, Header: challenge}}},
		{name: "403 in mid-pull", bar: nothing, proxy: []faultproxy.Fault{{Times: 1, Status: http.StatusForbidden}}},
		{name: "corrupt bytes", bar: oneLayer, proxy: []faultproxy.Fault{{Times: 1, After: 1000, Corrupt: true}}},
		{name: "the registry is away for 3 s", bar: oneRange, run: registryAway},
		{name: "containerd is killed and comes back", bar: oneLayer, run: containerdKilled},
		{name: "SIGKILL at 25%, 10 MiB/s in all", bar: oneLayer, bandwidth: 10 * mib, run: killedAt(0.25)},
		{name: "SIGKILL at 50%, 10 MiB/s in all", bar: oneLayer, bandwidth: 10 * mib, run: killedAt(0.5)},
		{name: "SIGKILL at 75%, 10 MiB/s in all", bar: oneLayer, bandwidth: 10 * mib, run: killedAt(0.75)},
		{name: "SIGKILL at 95%, 10 MiB/s in all", bar: oneLayer, bandwidth: 10 * mib, run: killedAt(0.95)},
		// Where the network is faster than the unpacking, much has been read ahead (up to 128 MiB).
		{name: "SIGKILL at 50%, fast network", bar: oneLayer, run: killedAt(0.5)},
		{name: "SIGKILL at 95%, fast network", bar: oneLayer, run: killedAt(0.95)},
		{name: "power loss at 75%", bar: allOfIt, run: powerLoss},
	}
}

func registryAway(ctx context.Context, w *world) error {
	agent := w.agent(ctx)
	if err := agent.Start(); err != nil {
		return err
	}
	err := w.until(ctx, 0.5)
	if err == nil {
		err = w.registry.Down()
	}
	select {
	case <-ctx.Done():
	case <-time.After(3 * time.Second):
	}
	return errors.Join(err, w.registry.Up(ctx), agent.Wait())
}

func containerdKilled(ctx context.Context, w *world) error {
	agent := w.agent(ctx)
	if err := agent.Start(); err != nil {
		return err
	}
	err := w.until(ctx, 0.5)
	if err == nil {
		err = w.ctd.Kill()
	}
	return errors.Join(err, w.ctd.Restart(ctx), agent.Wait())
}

// kill ends an agent with SIGKILL when a share of the bytes has come.
func kill(ctx context.Context, w *world, share float64) error {
	agent := w.agent(ctx)
	if err := agent.Start(); err != nil {
		return err
	}
	err := w.until(ctx, share)
	err = errors.Join(err, agent.Process.Kill())
	if agent.Wait() == nil {
		return errors.Join(err, errors.New("it was through before it could be killed"))
	}
	return err
}

func killedAt(share float64) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) error {
		if err := kill(ctx, w, share); err != nil {
			return err
		}
		return w.agent(ctx).Run()
	}
}

// powerLoss kills agent and containerd together and lets the machine come up as another boot: of layers that containerd
// did not have yet nothing says that their bytes reached the disk, so they must come again.
func powerLoss(ctx context.Context, w *world) error {
	err := errors.Join(kill(ctx, w, 0.75), w.ctd.Kill())
	for _, kind := range []string{"done", "partial"} {
		dirs, globErr := filepath.Glob(filepath.Join(w.staging(), kind+"-*"))
		err = errors.Join(err, globErr)
		for _, dir := range dirs {
			err = errors.Join(err, os.Rename(dir, filepath.Join(w.staging(), kind+"-the-boot-before")))
		}
	}
	return errors.Join(err, w.ctd.Restart(ctx), w.agent(ctx).Run())
}
