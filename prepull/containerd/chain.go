package containerd

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"headstart.dev/prepull"
	"headstart.dev/prepull/containerd/internal/layer"
	"headstart.dev/prepull/containerd/internal/registry"
)

// Which engine is asked next, and what a failure of all means, follows from what can still help: another engine, time,
// room, somebody who pushes the image, or nothing.

// resolvePatience is how long a registry may be asked what a name stands for before the CRI is: it may know a mirror or a
// proxy that we do not.
const resolvePatience = 20 * time.Second

// runEngines hands the image from engine to engine until one succeeds or none can help.
func (s *Store) runEngines(ctx context.Context, p *pull, engines []engine) error {
	var errs []error
	for _, e := range engines {
		if reason := e.unfit(p); reason != "" {
			s.passOver(p, e, reason)
			continue
		}
		if e.name() == EngineClient && len(errs) > 0 && ofRegistry(errs[len(errs)-1]) {
			continue // it asks the same registry in the same way
		}
		p.progress.engine(e.name())
		err := e.pull(ctx, p)
		if err == nil {
			err = s.accept(ctx, p, e)
		}
		if err == nil {
			s.vindicate(p, e)
			return nil
		}
		err = asNoRoom(err)
		errs = append(errs, fmt.Errorf("engine %s: %w", e.name(), err))
		p.progress.passedOver(e.name(), err.Error())
		if ctx.Err() != nil || errors.Is(err, ErrNoRoom) || errdefs.IsUnavailable(err) || isFinal(err) {
			return errors.Join(errs...)
		}
		p.progress.again()
		s.cfg.Log.Info("engine failed", "image", p.name, "engine", e.name(), "reason", err.Error())
	}
	if len(errs) == 0 {
		return errors.New("no engine fits this node")
	}
	return exhausted(errs)
}

// exhausted gives the failure of all engines its meaning. What an image holds is what it holds: when all have tried to
// read it, and the last did not merely fail to get it, asking again brings nothing but the same bytes.
func exhausted(errs []error) error {
	all := errors.Join(errs...)
	if ofContent(all) && !mayHeal(errs[len(errs)-1]) {
		return prepull.Permanent(all)
	}
	return all
}

// ofContent reports whether a failure is one of what the image holds.
func ofContent(err error) bool {
	return errors.Is(err, layer.ErrHostile) || errors.Is(err, layer.ErrCorrupt) || errors.Is(err, registry.ErrCorrupt) ||
		errors.Is(err, registry.ErrUnsupported)
}

// ofRegistry reports whether a failure is one of what came from the registry, or did not.
func ofRegistry(err error) bool {
	return errors.Is(err, registry.ErrFetch) || errors.Is(err, registry.ErrCorrupt) || errors.Is(err, layer.ErrCorrupt)
}

// isFinal reports whether neither time nor another engine can help.
func isFinal(err error) bool {
	return prepull.IsPermanent(err) || errors.Is(err, layer.ErrOversize) || errors.Is(err, errVerifier)
}

// mayHeal reports whether the CRI, whose errors are texts, has failed for a reason of the moment.
func mayHeal(err error) bool {
	if ofContent(err) {
		return false
	}
	code := status.Code(errors.Unwrap(err))
	if code == codes.Unavailable || code == codes.DeadlineExceeded || code == codes.ResourceExhausted {
		return true
	}
	return ofTheMoment.MatchString(err.Error())
}

// ofTheMoment are the words of failures that pass.
var ofTheMoment = regexp.MustCompile(`(?i)timeout|deadline|connection re|no such host|\bEOF\b|\b(429|500|502|503|504)\b`)

// classify gives a failed pull its meaning for whoever decides about another attempt.
func classify(err error) error {
	switch {
	case err == nil:
		return nil
	case isFinal(err):
		return prepull.Permanent(err)
	case registry.Terminal(err):
		err = prepull.Refused(err)
	}
	return prepull.After(err, registry.RetryAfter(err))
}

// pull brings one image.
func (s *Store) pull(ctx context.Context, p *pull) error {
	cri := s.criEngine()
	if reason := p.node.leftToCRI(ctx, p); reason != "" {
		return s.leave(ctx, p, cri, reason)
	}
	began := time.Now()
	resolveCtx, cancel := ctx, context.CancelFunc(func() {})
	if cri != nil && cri.unfit(p) == "" {
		resolveCtx, cancel = context.WithTimeout(ctx, resolvePatience)
	}
	err := p.resolve(resolveCtx)
	cancel()
	p.progress.stage("resolve", time.Since(began))
	if err != nil {
		return s.unresolved(ctx, p, cri, err)
	}
	ctx, release, err := p.node.lease(ctx, p.resolved.Target.Digest)
	if err != nil {
		return err
	}
	err = s.bring(ctx, p, cri)
	// After a failure the lease stays, as what was fetched is used by the next attempt; but for one that waits for room.
	full := err != nil && errors.Is(err, ErrNoRoom)
	err = errors.Join(err, release(ctx, err == nil || full))
	if full {
		s.giveBack(p)
		p.node.collectGarbage(ctx)
		err = p.node.afterRoom(err, p.written.Load())
	}
	return err
}

// bring makes a resolved image whole, by whichever engine can, unless it is there.
func (s *Store) bring(ctx context.Context, p *pull, cri *criEngine) error {
	there, err := p.isThere(ctx)
	switch {
	case err != nil:
		return err
	case there:
		if err = s.accept(ctx, p, nil); errors.Is(err, errNotSeen) && cri != nil {
			err = s.runEngines(ctx, p, []engine{*cri})
		}
	default:
		err = s.runEngines(ctx, p, s.engines)
	}
	if err != nil {
		return err
	}
	if err := p.findLazy(ctx); err != nil {
		return err
	}
	if len(p.lazy) == 0 {
		p.progress.complete()
	}
	return nil
}

// giveBack removes what is unpacked of an image and not yet a snapshot, as far as no other pull works with it.
func (s *Store) giveBack(p *pull) {
	for _, one := range s.engines {
		if direct, is := one.(*directEngine); is {
			direct.giveBack(p)
		}
	}
	p.node.forgetPartials(p)
}

// criEngine returns the CRI among the engines, nil when it is not one.
func (s *Store) criEngine() *criEngine {
	for _, one := range s.engines {
		if cri, is := one.(criEngine); is {
			return &cri
		}
	}
	return nil
}

// unresolved hands an image that no registry has told us of to the CRI, which may know another way.
func (s *Store) unresolved(ctx context.Context, p *pull, cri *criEngine, err error) error {
	if cri == nil || ctx.Err() != nil || errdefs.IsUnavailable(err) || cri.unfit(p) != "" {
		return exhausted([]error{err})
	}
	s.cfg.Log.Info("image is left to the CRI", "image", p.name, "reason", err.Error())
	for _, e := range s.engines {
		if e.name() == EngineDirect || e.name() == EngineClient {
			p.progress.passedOver(e.name(), err.Error())
		}
	}
	criErr := s.byCRI(ctx, p, cri)
	if criErr == nil {
		return nil
	}
	p.progress.passedOver(EngineCRI, criErr.Error())
	if errors.Is(criErr, ErrNoRoom) || isFinal(criErr) {
		return errors.Join(err, criErr)
	}
	return exhausted([]error{err, fmt.Errorf("engine %s: %w", EngineCRI, criErr)})
}

// leave hands an image to the CRI because the node's owner has said so.
func (s *Store) leave(ctx context.Context, p *pull, cri *criEngine, reason string) error {
	for _, e := range s.engines {
		if e.name() != EngineCRI {
			s.passOver(p, e, reason)
		}
	}
	if cri == nil {
		return prepull.Permanent(fmt.Errorf("%s, and the CRI is not among the engines", reason))
	}
	if unfit := cri.unfit(p); unfit != "" {
		return prepull.Permanent(fmt.Errorf("%s, and the CRI cannot: %s", reason, unfit))
	}
	err := s.byCRI(ctx, p, cri)
	if err == nil || ctx.Err() != nil || isFinal(err) || errors.Is(err, ErrNoRoom) {
		return err
	}
	// As with a registry that is down: what is complete on the node is as warm as before.
	if there, localErr := p.local(ctx); localErr == nil && there != nil && p.image.AtDigest == "" {
		s.cfg.Log.Info("image is taken as it is on the node", "image", p.name, "reason", err.Error())
		p.use(there)
		return s.accept(ctx, p, nil)
	}
	return fmt.Errorf("engine %s: %w", EngineCRI, err)
}

// byCRI has the CRI pull an image of which we know nothing, and learns from the node what it brought.
func (s *Store) byCRI(ctx context.Context, p *pull, cri *criEngine) error {
	before, err := p.local(ctx)
	if err != nil {
		return err
	}
	if err := p.node.roomFor(0); err != nil {
		return p.node.afterRoom(err, 0)
	}
	began := time.Now()
	p.progress.engine(EngineCRI)
	if err := cri.ask(ctx, p, nil); err != nil {
		if err = asNoRoom(err); errors.Is(err, ErrNoRoom) {
			err = p.node.afterRoom(err, 0)
		}
		return err
	}
	p.progress.stage("pull", time.Since(began))
	if err := p.adopt(ctx); err != nil {
		return err
	}
	if before == nil || before.Target.Digest != p.resolved.Target.Digest {
		p.progress.fetched(p.resolved.TotalBytes())
	}
	if err := s.accept(ctx, p, nil); err != nil {
		return err
	}
	p.progress.complete()
	return nil
}

// adopt takes the image as the CRI has brought it.
func (p *pull) adopt(ctx context.Context) error {
	there, err := p.localAs(ctx, criName(p))
	if err != nil {
		return err
	}
	if there == nil {
		return errors.New("the CRI has pulled it, and it is not complete on the node")
	}
	p.use(there)
	return nil
}
