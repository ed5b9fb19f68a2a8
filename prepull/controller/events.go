package controller

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"headstart.dev/prepull/v1alpha1"
)

// eventQueue is how many events may wait; what is over is dropped, because no event may delay a write.
const eventQueue = 64

// events tells of transitions, apart from the loop.
type events struct {
	client kubernetes.Interface
	queue  chan *corev1.Event
}

func newEvents(client kubernetes.Interface) *events {
	return &events{client: client, queue: make(chan *corev1.Event, eventQueue)}
}

// invalid tells that a policy cannot be followed.
func (e *events) invalid(policy *v1alpha1.PrepullPolicy) {
	message := ""
	if c := apimeta.FindStatusCondition(policy.Status.Conditions, v1alpha1.ConditionAccepted); c != nil {
		message = c.Message
	}
	now := metav1.NewTime(time.Now())
	event := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{GenerateName: policy.Name + ".", Namespace: metav1.NamespaceDefault},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: v1alpha1.GroupVersion.String(), Kind: "PrepullPolicy", Name: policy.Name, UID: policy.UID,
			ResourceVersion: policy.ResourceVersion,
		},
		Type: corev1.EventTypeWarning, Reason: v1alpha1.ReasonInvalid, Message: message, Count: 1,
		FirstTimestamp: now, LastTimestamp: now, Source: corev1.EventSource{Component: "headstart-controller"},
		ReportingController: "headstart-controller",
	}
	select {
	case e.queue <- event:
	default:
	}
}

// run sends events until ctx ends.
func (e *events) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case event := <-e.queue:
			send, cancel := context.WithTimeout(ctx, requestTimeout)
			_, err := e.client.CoreV1().Events(event.Namespace).Create(send, event, metav1.CreateOptions{})
			cancel()
			if err != nil && ctx.Err() == nil {
				klog.FromContext(ctx).V(1).Info("event not recorded", "reason", event.Reason, "cause", err.Error())
			}
		}
	}
}
