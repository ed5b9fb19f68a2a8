package bottlerocket

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// APISocket is where a host container finds Bottlerocket's API. Source: bottlerocket-core-kit host-ctr, default mounts.
const APISocket = "/run/api.sock"

const (
	// transaction names our change, so that it never commits somebody else's pending one.
	transaction = "headstart"
	apiTimeout  = 10 * time.Second
	// maxAnswer bounds what is read of an answer that says why not.
	maxAnswer = 4 << 10
)

// Client speaks to Bottlerocket's API.
type Client struct {
	// Socket is the API's socket; empty means APISocket.
	Socket string
}

// Disable switches the host container off: without that, systemd starts it again whenever it ends. The container that
// calls it is stopped, so nothing may be left to do. Doing it again does nothing.
func (c Client) Disable(ctx context.Context, container string) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	settings, err := json.Marshal(map[string]any{"host-containers": map[string]any{container: map[string]any{"enabled": false}}})
	if err != nil {
		return fmt.Errorf("disable host container %q: %w", container, err)
	}
	if err := c.send(ctx, http.MethodPatch, "/settings?tx="+transaction, settings); err != nil {
		return fmt.Errorf("disable host container %q: %w", container, err)
	}
	if err := c.send(ctx, http.MethodPost, "/tx/commit_and_apply?tx="+transaction, nil); err != nil {
		return fmt.Errorf("disable host container %q: commit: %w", container, err)
	}
	return nil
}

func (c Client) send(ctx context.Context, method, path string, body []byte) error {
	request, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	socket := c.Socket
	if socket == "" {
		socket = APISocket
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", socket)
	}}}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode/100 != 2 {
		why, _ := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
		return fmt.Errorf("%s %s: %s: %s", method, path, response.Status, bytes.TrimSpace(why))
	}
	return nil
}
