package controller

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/gates"
)

// thing is what is kept of an object that pods name: that it exists, and the names in it that somebody may ask for.
type thing struct {
	namespace, name, version string
	uid                      types.UID
	deleting                 bool
	names                    []string
	namesKnown               bool
}

// GetObjectMeta makes a thing an object for caches.
func (t *thing) GetObjectMeta() metav1.Object {
	return &metav1.ObjectMeta{Namespace: t.namespace, Name: t.name, UID: t.uid, ResourceVersion: t.version}
}

// same says whether both give the same answers.
func (t *thing) same(other *thing) bool {
	return t.uid == other.uid && t.deleting == other.deleting && t.namesKnown == other.namesKnown && slices.Equal(t.names, other.names)
}

func (t *thing) existence() gates.Existence {
	return gates.Existence{There: !t.deleting, Names: t.names, NamesKnown: t.namesKnown}
}

func newThing(meta *metav1.ObjectMeta) *thing {
	return &thing{
		namespace: meta.Namespace, name: meta.Name, version: meta.ResourceVersion, uid: meta.UID, deleting: meta.DeletionTimestamp != nil,
	}
}

// readThing makes a thing of what a watch delivers. What it has made already, and tombstones, are left as they are.
func readThing(object any) (any, error) {
	switch object := object.(type) {
	case *metav1.PartialObjectMetadata:
		out := newThing(&object.ObjectMeta)
		out.names, out.namesKnown = dataKeys(object.ManagedFields)
		return out, nil
	case *corev1.ServiceAccount:
		out := newThing(&object.ObjectMeta)
		for _, ref := range object.ImagePullSecrets {
			out.names = append(out.names, ref.Name)
		}
		return out, nil
	}
	return object, nil
}

// dataKeys lists the keys of a ConfigMap or a Secret, and whether it is known that these are all. The values are never
// read: managedFields say which keys somebody has written, and they are metadata.
func dataKeys(fields []metav1.ManagedFieldsEntry) (keys []string, known bool) {
	found := map[string]struct{}{}
	for i := range fields {
		if fields[i].FieldsV1 == nil {
			continue
		}
		var owned map[string]json.RawMessage
		if err := json.Unmarshal(fields[i].FieldsV1.GetRawBytes(), &owned); err != nil {
			return nil, false
		}
		for _, part := range []string{"f:data", "f:binaryData", "f:stringData"} {
			var names map[string]json.RawMessage
			if owned[part] == nil || json.Unmarshal(owned[part], &names) != nil {
				continue
			}
			known = true
			for name := range names {
				if key, ok := strings.CutPrefix(name, "f:"); ok {
					found[key] = struct{}{}
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(found)), known
}
