package testenv

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
)

// answersOK returns a check that passes when a GET of url answers 200. tlsConfig may be nil for plain HTTP.
func answersOK(url string, tlsConfig *tls.Config) func(context.Context) error {
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: tlsConfig, DisableKeepAlives: true}}
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return fmt.Errorf("ask for health: %w", err)
		}
		response, err := client.Do(request)
		if err != nil {
			return fmt.Errorf("ask for health: %w", err)
		}
		defer func() { _ = response.Body.Close() }()
		body, err := io.ReadAll(io.LimitReader(response.Body, 2<<10))
		if err != nil {
			return fmt.Errorf("read the health of %s: %w", url, err)
		}
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("health of %s: %s: %s", url, response.Status, body)
		}
		return nil
	}
}

// both passes when first and then second pass.
func both(first, second func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := first(ctx); err != nil {
			return err
		}
		return second(ctx)
	}
}
