package controller

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
)

// apiNodes is the API server as nodeWriter. Patches are answered with metadata only: the whole Node would be encoded,
// sent and decoded for nothing.
type apiNodes struct {
	patches metadata.ResourceInterface
	nodes   corev1client.NodesGetter
}

var _ nodeWriter = apiNodes{}

func (a apiNodes) PatchNode(ctx context.Context, name string, patch []byte) (string, error) {
	out, err := a.patches.Patch(ctx, name, types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: fieldManager})
	if err != nil {
		if isTestFailed(err) {
			return "", fmt.Errorf("patch node %q: %w: %w", name, errChanged, err)
		}
		return "", fmt.Errorf("patch node %q: %w", name, err)
	}
	return out.ResourceVersion, nil
}

func (a apiNodes) GetNode(ctx context.Context, name string) (*corev1.Node, error) {
	return a.nodes.Nodes().Get(ctx, name, metav1.GetOptions{})
}

// fieldManager names the controller in managedFields.
const fieldManager = "headstart-controller"
