package gates_test

import (
	"net/http"
	"path"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"headstart.dev/gates/v1alpha1"
)

// TestWhatMayNotBeReadIsNotAskedForForEver runs the controller with the rights of the chart's defaults, which do not let it list
// ConfigMaps: it must not ask again and again, and must see when somebody grants the right.
func TestWhatMayNotBeReadIsNotAskedForForEver(t *testing.T) {
	c := newClient(t)
	asDeployed(t, c)
	var mu sync.Mutex
	asked := 0
	robot := plane.ConfigFor(controllerUser, controllerGroup)
	robot.QPS = -1
	robot.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(request *http.Request) (*http.Response, error) {
			if path.Base(request.URL.Path) == "configmaps" {
				mu.Lock()
				asked++
				mu.Unlock()
			}
			return next.RoundTrip(request)
		})
	})
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return asked
	}
	startController(t, robot)
	ns, gate := namespace(t, c), "example.com/denied"
	policy(t, c, "denied", v1alpha1.GatePolicySpec{GateName: gate, Requires: references()})
	awaitGates(t, c, makePod(ns, "web", gate).envFrom("flags").create(t, c))
	before := count()
	require.Positive(t, before)
	// client-go would come again after about a second, and then every 30 s for as long as the process lives.
	select {
	case <-t.Context().Done():
	case <-time.After(quietly):
	}
	require.LessOrEqual(t, count(), before+1, "one may have been on its way")

	subject := rbacv1.Subject{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: controllerUser}
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "denied-no-more"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"list", "watch"}},
	}}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role.Name}, Subjects: []rbacv1.Subject{subject},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
	}
	require.NoError(t, c.Create(t.Context(), role))
	t.Cleanup(func() { require.NoError(t, c.Delete(afterwards(t), role)) })
	require.NoError(t, c.Create(t.Context(), binding))
	t.Cleanup(func() { require.NoError(t, c.Delete(afterwards(t), binding)) })
	// Pods that come later are waited for again.
	eventually(t, func() bool {
		pod := makePod(ns, "", gate).envFrom("flags")
		pod.pod.GenerateName = "late-"
		late := pod.create(t, c)
		select {
		case <-t.Context().Done():
		case <-time.After(time.Second):
		}
		return len(gatesOf(read(t, c, late))) == 1
	}, "nobody waits for the ConfigMap that may be read by now")
}

// quietly is longer than client-go waits before it asks a second and a third time.
const quietly = 6 * time.Second
