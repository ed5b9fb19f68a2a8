package main

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	gatesv1alpha1 "headstart.dev/gates/v1alpha1"
	"headstart.dev/readiness/compat/guide"
	"headstart.dev/readiness/compat/upstream"
)

// output is a buffer that is read while it is written.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// watched is a cluster whose watches of nodes the test holds in its hands, one after the other.
func watched(t *testing.T) (*cluster, *fake.Clientset, chan *watch.FakeWatcher) {
	t.Helper()
	lists := map[schema.GroupVersionResource]string{}
	for _, form := range []schema.GroupVersion{gatesv1alpha1.GroupVersion, guide.GroupVersion, upstream.GroupVersion} {
		lists[form.WithResource(ruleResource)] = "NodeReadinessRuleList"
	}
	client := fake.NewClientset()
	watches := make(chan *watch.FakeWatcher, 10)
	client.PrependWatchReactor("nodes", func(clienttesting.Action) (bool, watch.Interface, error) {
		w := watch.NewFake()
		watches <- w
		return true, w, nil
	})
	return &cluster{
		core: client, watching: client, clock: &serverClock{},
		dynamic: dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), lists),
	}, client, watches
}

func nodeNamed(name string, probe corev1.ConditionStatus) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: "headstart.dev/MyAgentReady", Status: probe}}},
	}
}

func TestFollow(t *testing.T) {
	for form, want := range map[string][]string{ // first, changed, gone while it looked away, come meanwhile
		"text": {"a     None   -    0/1", "a     None   -    1/1", "a  Deleted", "b     None   -    1/1"},
		"name": {"node/a", "node/a\nnode/a", "node/a\nnode/a\nnode/b\nnode/a", "node/b"},
		"json": {`"name": "a"`, `"status": "True"`, `"state": "Deleted"`, `"name": "b"`},
		"yaml": {"name: a", `- status: "True"`, "state: Deleted", "name: b"},
	} {
		t.Run(form, func(t *testing.T) {
			c, client, watches := watched(t)
			nodes := client.Tracker()
			require.NoError(t, nodes.Add(nodeNamed("a", corev1.ConditionFalse)))
			ctx, stop := context.WithCancel(t.Context())
			var out, errs output
			cmd := &cobra.Command{}
			cmd.SetContext(ctx)
			cmd.SetOut(&out)
			cmd.SetErr(&errs)
			s := &statusFlags{output: form}
			done := make(chan error, 1)
			go func() { done <- s.follow(cmd, c) }()
			shows := func(text string) {
				t.Helper()
				require.Eventually(t, func() bool { return strings.Contains(out.String(), text) }, 10*time.Second, time.Millisecond, "%q in\n%s", text, out.String())
			}
			first := <-watches
			shows(want[0])
			first.Modify(nodeNamed("a", corev1.ConditionTrue))
			shows(want[1])
			before := out.String()
			first.Modify(nodeNamed("a", corev1.ConditionTrue)) // nothing that is shown has changed
			require.NoError(t, nodes.Delete(corev1.SchemeGroupVersion.WithResource("nodes"), "", "a"))
			require.NoError(t, nodes.Add(nodeNamed("b", corev1.ConditionTrue)))
			require.Equal(t, before, out.String())
			first.Stop()
			<-watches
			shows(want[2])
			shows(want[3])
			require.Contains(t, errs.String(), "no controller is alive")
			require.Equal(t, 1, strings.Count(errs.String(), "no controller is alive"), "it is said once")
			stop()
			require.NoError(t, <-done)
		})
	}
}
