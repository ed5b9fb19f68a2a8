package resolve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// What is wrong with an answer goes into the status of a policy, where others read it than those who may ask the server. So
// nothing that the server wrote is passed on: neither its body nor its headers.
var (
	errUnreadable = errors.New("the answer cannot be understood")
	errTooLarge   = errors.New("the answer is too large")
	errNoPlatform = errors.New("the index has no such image")
	errNoName     = errors.New("the registry's name cannot be resolved")
	errUntrusted  = errors.New("the registry's certificate is not accepted")
)

// codes are those of the distribution specification; a server may write anything in their place.
var codes = []transport.ErrorCode{
	transport.BlobUnknownErrorCode, transport.DigestInvalidErrorCode, transport.ManifestBlobUnknownErrorCode, transport.ManifestInvalidErrorCode,
	transport.ManifestUnknownErrorCode, transport.NameInvalidErrorCode, transport.NameUnknownErrorCode, transport.UnauthorizedErrorCode,
	transport.DeniedErrorCode, transport.UnsupportedErrorCode, transport.TooManyRequestsErrorCode,
}

// problem is err without what the server wrote.
func problem(err error) error {
	var answer *transport.Error
	var tooLarge *http.MaxBytesError
	var network *net.OpError
	var resolution *net.DNSError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return context.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.As(err, &answer):
		for _, d := range answer.Errors {
			if slices.Contains(codes, d.Code) {
				return fmt.Errorf("the registry answers %d %s", answer.StatusCode, d.Code)
			}
		}
		return fmt.Errorf("the registry answers %d", answer.StatusCode)
	case errors.As(err, &tooLarge):
		return errTooLarge
	case errors.As(err, &resolution):
		return errNoName
	case errors.As(err, &certificate):
		return errUntrusted
	case errors.As(err, &network):
		return network
	}
	return errUnreadable
}
