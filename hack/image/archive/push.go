package archive

import (
	"context"
	"fmt"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Push uploads the image that Write wrote to path to the registry of its reference, with the credentials
// that "docker login" and its like have stored.
func Push(ctx context.Context, path, reference string) error {
	tag, err := name.NewTag(reference)
	if err != nil {
		return fmt.Errorf("image reference %q: %w", reference, err)
	}
	image, err := tarball.ImageFromPath(path, &tag)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if err := remote.Write(tag, image, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
		return fmt.Errorf("push %s: %w", tag, err)
	}
	return nil
}
