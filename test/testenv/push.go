package testenv

import (
	"context"
	"fmt"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// pushJobs uploads layers beside each other; more than the machine has cores wins nothing on loopback.
const pushJobs = 2

// Push stores an image under repository and tag, for example "team/app:v1", and returns the reference by which nodes pull it and
// its digest. It goes round the proxy: a push is neither counted nor broken.
func (r *Registry) Push(ctx context.Context, repositoryTag string, image v1.Image) (ref, digest string, err error) {
	return r.push(repositoryTag, image, func(target name.Tag) error {
		return remote.Write(target, image, remote.WithContext(ctx), remote.WithJobs(pushJobs))
	})
}

// PushIndex is Push for an index with all that it names.
func (r *Registry) PushIndex(ctx context.Context, repositoryTag string, index v1.ImageIndex) (ref, digest string, err error) {
	return r.push(repositoryTag, index, func(target name.Tag) error {
		return remote.WriteIndex(target, index, remote.WithContext(ctx), remote.WithJobs(pushJobs))
	})
}

func (r *Registry) push(repositoryTag string, what interface{ Digest() (v1.Hash, error) }, write func(name.Tag) error) (string, string, error) {
	target, err := name.NewTag(r.backend+"/"+repositoryTag, name.Insecure, name.StrictValidation)
	if err != nil {
		return "", "", fmt.Errorf("push %q: %w", repositoryTag, err)
	}
	if err := write(target); err != nil {
		return "", "", fmt.Errorf("push %q: %w", repositoryTag, err)
	}
	hash, err := what.Digest()
	if err != nil {
		return "", "", fmt.Errorf("push %q: %w", repositoryTag, err)
	}
	return r.Image(repositoryTag), hash.String(), nil
}
