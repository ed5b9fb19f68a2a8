package probe

import (
	"context"
	"fmt"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// RuntimeConditions are the conditions that a CRI runtime reports of itself, by their type.
type RuntimeConditions map[string]*runtimeapi.RuntimeCondition

// CRI reads a container runtime's own view of its readiness.
type CRI struct {
	// Address is the path of the runtime's socket.
	Address string
}

// Conditions asks once.
func (c *CRI) Conditions(ctx context.Context) (RuntimeConditions, error) {
	conn, err := dialGRPC(ctx, "unix://"+c.Address)
	if err != nil {
		return nil, fmt.Errorf("ask the container runtime: %w", err)
	}
	defer func() { _ = conn.Close() }()
	answer, err := runtimeapi.NewRuntimeServiceClient(conn).Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		return nil, fmt.Errorf("ask the container runtime: %w", err)
	}
	conditions := RuntimeConditions{}
	for _, condition := range answer.GetStatus().GetConditions() {
		conditions[condition.GetType()] = condition
	}
	return conditions, nil
}
