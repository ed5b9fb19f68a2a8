package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
)

// HTTP is ready while URL answers 200 to 399. As the kubelet's, it verifies no certificate and follows no redirect to
// another host.
type HTTP struct {
	URL string
	// Headers are sent beside our own; a Host among them is the request's. Nil for none.
	Headers http.Header
}

// Check sends one GET.
func (p *HTTP) Check(ctx context.Context) Result {
	code, _, err := getWith(ctx, p.URL, "", p.Headers)
	switch {
	case err != nil:
		return httpFailure(p.URL, err)
	case code < 200 || code > 399:
		return notReady(ReasonUnhealthy, "%s answered %d", p.URL, code)
	}
	return ready("%s answers", p.URL)
}

// maxBodyBytes is what is read of an answer.
const maxBodyBytes = 64 << 10

// get sends one GET over a connection of its own, to target or, where socket is set, to that unix socket, with headers that
// are "true". It keeps nothing open.
func get(ctx context.Context, target, socket string, headers ...string) (code int, body []byte, err error) {
	out := http.Header{}
	for _, header := range headers {
		out.Set(header, "true")
	}
	return getWith(ctx, target, socket, out)
}

// getWith is get with headers that have values of their own.
func getWith(ctx context.Context, target, socket string, headers http.Header) (code int, body []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, http.NoBody)
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("User-Agent", "headstart-agent")
	request.Header.Set("Accept", "*/*")
	for name, values := range headers {
		request.Header[http.CanonicalHeaderKey(name)] = values
	}
	if host := headers.Get("Host"); host != "" {
		request.Host = host
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		//nolint:gosec // as the kubelet: a probe asks whether somebody answers, and sends no secret
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}
	if socket != "" {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, "unix://"+socket) }
	}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, CheckRedirect: func(next *http.Request, via []*http.Request) error {
		if next.URL.Host != via[0].URL.Host || len(via) >= 10 {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err = io.ReadAll(io.LimitReader(response.Body, maxBodyBytes))
	return response.StatusCode, body, err
}

// httpFailure says why target gave no answer.
func httpFailure(target string, err error) Result {
	switch {
	case isTimeout(err):
		return notReady(ReasonTimeout, "%s did not answer in time", target)
	case errors.Is(err, syscall.ECONNREFUSED):
		return notReady(ReasonUnreachable, "nobody listens for %s", target)
	}
	// http.Client puts the method and the URL in front of the cause.
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	return notReady(ReasonUnreachable, "%s: %v", target, err)
}
