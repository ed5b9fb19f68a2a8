package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"

	gatesv1alpha1 "headstart.dev/gates/v1alpha1"
)

// requiredCRDs are those without which the controllers do not start. The CRDs of rule forms may come later, or never:
// which of them there are is the user's choice.
var requiredCRDs = []string{"gatepolicies", "prepullpolicies", "warmpools"}

// A chart's CRDs are served within seconds; a Deployment that comes with them must not be restarted for that.
const (
	crdPatience = 20 * time.Second
	crdPoll     = 500 * time.Millisecond
	crdTimeout  = 5 * time.Second
)

// awaitCRDs waits for the required CRDs to be served, for a while, and fails with the names of those that are not. The
// kubelet starts the process again then.
func awaitCRDs(ctx context.Context, config *rest.Config, log logr.Logger, patience time.Duration) error {
	config = rest.CopyConfig(config)
	config.Timeout = crdTimeout
	client, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return fmt.Errorf("make client for CRDs: %w", err)
	}
	deadline := time.Now().Add(patience)
	told := false
	for {
		missing, err := missingCRDs(client)
		over := !time.Now().Before(deadline)
		switch {
		case err == nil && len(missing) == 0:
			return nil
		case err != nil && over:
			return fmt.Errorf("look for CRDs: %w", err)
		case err != nil: // an API server that starts itself, or has too much to do
		case over:
			return fmt.Errorf("not installed: %s: apply deploy/crd (kubectl apply --server-side -f deploy/crd), or install the chart, which has them",
				strings.Join(missing, ", "))
		case !told:
			log.Info("waiting for CRDs", "crds", missing, "duration", patience.String())
			told = true
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(crdPoll):
		}
	}
}

// missingCRDs are the names of the required CRDs that the API server does not serve.
func missingCRDs(client discovery.DiscoveryInterface) ([]string, error) {
	var served []string
	list, err := client.ServerResourcesForGroupVersion(gatesv1alpha1.GroupVersion.String())
	switch {
	case apierrors.IsNotFound(err):
	case err != nil:
		return nil, err
	default:
		for i := range list.APIResources {
			served = append(served, list.APIResources[i].Name)
		}
	}
	var missing []string
	for _, name := range requiredCRDs {
		if !slices.Contains(served, name) {
			missing = append(missing, name+"."+gatesv1alpha1.GroupVersion.Group)
		}
	}
	return missing, nil
}
