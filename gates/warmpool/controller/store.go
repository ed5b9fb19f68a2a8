package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/gates/v1alpha1"
	"headstart.dev/gates/warmpool"
)

const (
	// storePrefix and the pool's name make the name of the ConfigMap in which a pool's window survives a restart.
	storePrefix = "headstart-warmpool-"
	storeKey    = "state"
	// maxStateBytes bounds what is read back; 90 days of hours take about 70 KiB.
	maxStateBytes = 256 << 10
	// storePeriod is the least time between two writes of one pool: what a crash can lose. A changed size is kept
	// sooner; an orderly end loses nothing.
	storePeriod, storeSizePeriod = time.Minute, 5 * time.Second
	// flushTimeout bounds the writes of an orderly end, within the manager's own time for it.
	flushTimeout = 5 * time.Second
)

// state is what of a pool survives a restart. JSON in the ConfigMap; another version of it is ignored.
type state struct {
	Version int             `json:"version"`
	Pool    types.UID       `json:"pool"`
	Hours   []warmpool.Hour `json:"hours,omitempty"`
	Held    []warmpool.Held `json:"held,omitempty"`
	Leads   []float64       `json:"leadSeconds,omitempty"`
	Refills []float64       `json:"refillSeconds,omitempty"`
	Cold    []float64       `json:"coldStartSeconds,omitempty"`
	Warm    []float64       `json:"warmStartSeconds,omitempty"`
	// Consumed is status.consumed; the status alone could be a second old.
	Consumed int64 `json:"consumed"`
	Cost     cost  `json:"cost"`
}

const stateVersion = 1

// state returns what is to be kept, and a key that changes only with what is worth a write: hours without a rise and
// the mere passing of time are not.
func (p *pool) state(uid types.UID) (state, string, error) {
	s := state{
		Version: stateVersion, Pool: uid, Held: p.sizer.Held(), Leads: p.leads.Seconds(), Refills: p.refills.Seconds(),
		Cold: p.coldStarts.Seconds(), Warm: p.warmStarts.Seconds(), Consumed: p.consumed, Cost: p.cost,
	}
	keyed := s
	for _, h := range p.sizer.Window().Hours() {
		if h.Rise > 0 {
			keyed.Hours = append(keyed.Hours, h)
		}
	}
	keyed.Held = nil
	for _, h := range s.Held {
		keyed.Held = append(keyed.Held, warmpool.Held{Replicas: h.Replicas})
	}
	key, err := json.Marshal(keyed)
	if err != nil {
		return state{}, "", fmt.Errorf("encode state of warm pool %s: %w", p.key, err)
	}
	s.Hours = p.sizer.Window().Hours()
	return s, string(key), nil
}

// restore takes over what an earlier process kept.
func (p *pool) restore(s state, now time.Time) {
	p.sizer.Window().Restore(s.Hours, now)
	p.sizer.RestoreHeld(s.Held, now)
	p.leads.Restore(s.Leads)
	p.refills.Restore(s.Refills)
	p.coldStarts.Restore(s.Cold)
	p.warmStarts.Restore(s.Warm)
	p.consumed = max(0, s.Consumed)
	if s.Cost.Sum >= 0 && s.Cost.PerHour >= 0 {
		p.cost = s.Cost
	}
}

func storeName(wp *v1alpha1.WarmPool) string { return storePrefix + wp.Name }

// load reads what was kept of a pool. Nothing, or what cannot be read, is an empty state: the pool starts at its floor
// and learns anew.
func load(ctx context.Context, reader client.Reader, log logr.Logger, wp *v1alpha1.WarmPool) (state, error) {
	var stored corev1.ConfigMap
	err := reader.Get(ctx, types.NamespacedName{Namespace: wp.Namespace, Name: storeName(wp)}, &stored)
	if apierrors.IsNotFound(err) {
		return state{}, nil
	}
	if err != nil {
		return state{}, fmt.Errorf("read state of warm pool %s/%s: %w", wp.Namespace, wp.Name, err)
	}
	text := stored.Data[storeKey]
	var s state
	if len(text) > maxStateBytes {
		log.Info("kept state is too large and is ignored", "configMap", stored.Name, "bytes", len(text))
		return state{}, nil
	}
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		log.Info("kept state cannot be read and is ignored", "configMap", stored.Name, "reason", err.Error())
		return state{}, nil
	}
	if s.Version != stateVersion || s.Pool != wp.UID {
		return state{}, nil
	}
	return s, nil
}

// save writes the ConfigMap by server-side apply: there is one writer, and it does not read.
func save(ctx context.Context, c client.Client, wp *v1alpha1.WarmPool, s state) error {
	text, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode state of warm pool %s/%s: %w", wp.Namespace, wp.Name, err)
	}
	object := &corev1.ConfigMap{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: wp.Namespace, Name: storeName(wp), Labels: map[string]string{labelManagedBy: managedBy},
			OwnerReferences: []metav1.OwnerReference{*ownerReference(wp)},
		},
		Data: map[string]string{storeKey: string(text)},
	}
	//nolint:staticcheck // the typed apply configurations have no owner reference builder for foreign kinds that is shorter
	if err := c.Patch(ctx, object, client.Apply, client.FieldOwner(fieldOwner), client.ForceOwnership); err != nil {
		return fmt.Errorf("keep state of warm pool %s/%s: %w", wp.Namespace, wp.Name, err)
	}
	return nil
}

// keep writes what must survive a restart, when it changed and some time after the last write; it returns how long a
// write that is due has to wait, 0 for none.
func (r *reconciler) keep(ctx context.Context, wp *v1alpha1.WarmPool, w *written) (time.Duration, error) {
	var s state
	var key string
	var err error
	size := int32(0)
	if !r.model.with(client.ObjectKeyFromObject(wp), func(p *pool) { s, key, err = p.state(wp.UID); size = p.desired }) || err != nil || key == w.stateKey {
		return 0, err
	}
	period := storePeriod
	if size != w.stateSize {
		period = storeSizePeriod
	}
	now := r.now()
	if due := w.stateAt.Add(period); !w.stateAt.IsZero() && now.Before(due) {
		return due.Sub(now), nil
	}
	if err := save(ctx, r.client, wp, s); err != nil {
		return 0, err
	}
	w.stateKey, w.stateAt, w.stateSize = key, now, size
	return 0, nil
}

// Start waits for the end and then keeps what is not kept yet. As a runnable of the leader it ends before the lease is
// given back.
func (r *reconciler) Start(ctx context.Context) error {
	<-ctx.Done()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	var pools v1alpha1.WarmPoolList
	if err := r.client.List(ctx, &pools); err != nil {
		r.log.Info("the state of warm pools is not kept: they cannot be listed", "reason", err.Error())
		return nil
	}
	for i := range pools.Items {
		wp := &pools.Items[i]
		r.mu.Lock()
		w := r.written[client.ObjectKeyFromObject(wp)]
		r.mu.Unlock()
		if w == nil || w.uid != wp.UID {
			continue
		}
		if err := r.flush(ctx, wp, w); err != nil {
			r.log.Info("the state of a warm pool is not kept", "warmPool", klog.KObj(wp), "reason", err.Error())
		}
	}
	return nil
}

func (r *reconciler) flush(ctx context.Context, wp *v1alpha1.WarmPool, w *written) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var s state
	var key string
	var err error
	if !r.model.with(client.ObjectKeyFromObject(wp), func(p *pool) { s, key, err = p.state(wp.UID) }) || err != nil || key == w.stateKey {
		return err
	}
	return save(ctx, r.client, wp, s)
}
