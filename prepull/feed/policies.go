package feed

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"headstart.dev/prepull/v1alpha1"
)

// resource is the plural of the policies in a URL.
const resource = "prepullpolicies"

// writeTimeout bounds one status write.
const writeTimeout = 10 * time.Second

// Policies reads PrepullPolicies and writes their status. It is safe for concurrent use.
type Policies struct{ client rest.Interface }

// NewPolicies connects to the API server of cfg; it sends nothing yet.
func NewPolicies(cfg *rest.Config) (*Policies, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("register prepull policies: %w", err)
	}
	cfg = rest.CopyConfig(cfg)
	cfg.APIPath, cfg.GroupVersion = "/apis", &v1alpha1.GroupVersion
	cfg.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	// Protobuf, where a kubeconfig asks for it, is not spoken for custom resources.
	cfg.ContentType, cfg.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	client, err := rest.RESTClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("reach prepull policies: %w", err)
	}
	return &Policies{client: client}, nil
}

// Run feeds the handler with all policies until ctx ends.
func (p *Policies) Run(ctx context.Context, h Handler[*v1alpha1.PrepullPolicy]) {
	lw := cache.NewListWatchFromClient(p.client, resource, "", fields.Everything())
	lw.ListWithContextFunc = seldom(lw.ListWithContextFunc)
	Run(ctx, resource, lw, &v1alpha1.PrepullPolicy{}, h)
}

// seldom makes a list that was refused wait before it says so, twice as long each time: where there are no policies, or
// none for us, each of a thousand nodes would otherwise keep asking.
func seldom(list cache.ListWithContextFunc) cache.ListWithContextFunc {
	delay := wait.Backoff{Duration: time.Second, Factor: 2, Jitter: 1, Steps: 20, Cap: 10 * time.Minute}
	next := delay
	return func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		out, err := list(ctx, options)
		if !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err) {
			next = delay
			return out, err
		}
		timer := time.NewTimer(next.Step())
		defer timer.Stop()
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		return out, err
	}
}

// UpdateStatus writes the status if the policy is still the one that was read, and returns it as it is stored.
func (p *Policies) UpdateStatus(ctx context.Context, policy *v1alpha1.PrepullPolicy) (*v1alpha1.PrepullPolicy, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	out := &v1alpha1.PrepullPolicy{}
	err := p.client.Put().Resource(resource).Name(policy.Name).SubResource("status").Body(policy).Do(ctx).Into(out)
	if err != nil {
		return nil, fmt.Errorf("write status of prepull policy %q: %w", policy.Name, err)
	}
	return out, nil
}
