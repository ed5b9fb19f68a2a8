package feed

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestWhoIsRefusedAsksEverMoreSeldom(t *testing.T) {
	resource := schema.GroupResource{Group: "headstart.dev", Resource: "prepullpolicies"}
	for name, refusal := range map[string]error{
		"no such resource": apierrors.NewNotFound(resource, ""),
		"not for us":       apierrors.NewForbidden(resource, "", errors.New("no")),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				answer, asked := refusal, 0
				list := seldom(func(context.Context, metav1.ListOptions) (runtime.Object, error) { asked++; return nil, answer })
				took := func() time.Duration {
					began := time.Now()
					_, err := list(t.Context(), metav1.ListOptions{})
					require.Equal(t, answer, err)
					return time.Since(began)
				}
				require.LessOrEqual(t, took(), 2*time.Second, "an installation that is under way is soon seen")
				for range 12 {
					took()
				}
				require.GreaterOrEqual(t, took(), 10*time.Minute)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				began := time.Now()
				_, err := list(ctx, metav1.ListOptions{})
				require.Equal(t, refusal, err)
				require.Equal(t, time.Second, time.Since(began), "the end ends the wait")

				answer = errors.New("connection refused")
				require.Zero(t, took(), "a server that is away is the reflector's to wait for")
				answer = refusal
				require.LessOrEqual(t, took(), 2*time.Second)
				require.Equal(t, 17, asked)
			})
		})
	}
}
