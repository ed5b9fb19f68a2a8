package controller

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestDeviceIndex(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "now"}}
	slice := func(name string, generation, total int64, owner types.UID, devices int) *resourcev1.ResourceSlice {
		s := &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if owner != "" {
			s.OwnerReferences = []metav1.OwnerReference{{Kind: "Node", UID: owner}}
		}
		s.Spec = resourcev1.ResourceSliceSpec{
			Driver: "d", NodeName: &node.Name, Devices: make([]resourcev1.Device, devices),
			Pool: resourcev1.ResourcePool{Name: "p", Generation: generation, ResourceSliceCount: total},
		}
		return stripSlice(s)
	}
	var x deviceIndex
	require.Nil(t, x.devices(node))
	x.set(slice("a", 1, 1, "", 3), true)
	require.Equal(t, map[string]int{"d": 3}, x.devices(node))
	x.set(slice("b", 2, 2, "now", 1), true)
	require.Empty(t, x.devices(node), "a newer generation that is not complete")
	x.set(slice("c", 2, 2, "now", 4), true)
	require.Equal(t, map[string]int{"d": 5}, x.devices(node))
	x.set(slice("c", 2, 2, "before", 4), true)
	require.Empty(t, x.devices(node), "of an earlier Node of that name")
	x.set(slice("b", 2, 2, "", 1), false)
	x.set(slice("c", 2, 2, "", 1), false)
	require.Equal(t, map[string]int{"d": 3}, x.devices(node))

	byDevice := slice("shared", 1, 1, "", 2)
	other := "m"
	byDevice.Spec.NodeName, byDevice.Spec.Driver = nil, "shared"
	byDevice.Spec.Devices[0].NodeName, byDevice.Spec.Devices[1].NodeName = &node.Name, &other
	require.Len(t, x.set(byDevice, true), 2)
	require.Equal(t, map[string]int{"d": 3, "shared": 1}, x.devices(node))
}
