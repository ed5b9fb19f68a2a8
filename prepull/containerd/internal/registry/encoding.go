package registry

import (
	"compress/flate"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// encodings are what a server, or a proxy before it, has done to a body unasked, last one first.
func encodings(resp *http.Response) []string {
	var all []string
	for _, value := range resp.Header.Values("Content-Encoding") {
		for one := range strings.SplitSeq(value, ",") {
			if one = strings.ToLower(strings.TrimSpace(one)); one != "" && one != "identity" {
				all = append(all, one)
			}
		}
	}
	slices.Reverse(all)
	return all
}

// decoded undoes them.
// Source: containerd core/remotes/docker/fetcher.go@v2.4.2 does so for the same three.
func decoded(resp *http.Response, body io.Reader) (io.Reader, error) {
	for _, encoding := range encodings(resp) {
		switch encoding {
		case "gzip", "x-gzip":
			reader, err := gzip.NewReader(body)
			if err != nil {
				return nil, fmt.Errorf("decode the body of %s: %w", resp.Request.URL.Host, err)
			}
			body = reader
		case "zstd":
			reader, err := zstd.NewReader(body, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderLowmem(true))
			if err != nil {
				return nil, fmt.Errorf("decode the body of %s: %w", resp.Request.URL.Host, err)
			}
			body = reader
		case "deflate":
			body = flate.NewReader(body)
		default:
			return nil, fmt.Errorf("%s sends its body as %.40q: %w", resp.Request.URL.Host, encoding, ErrRefused)
		}
	}
	return body, nil
}
