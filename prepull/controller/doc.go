// Package controller turns PrepullPolicies into lists of images with digests and keeps their status: it follows the
// templates of workloads, learns which images pods start with, looks tags up once for all nodes, chooses what fits, paces
// the nodes, counts which of them are warm, and labels those. It writes the status of policies, one ConfigMap for each policy
// that learns, and on Nodes the labels under readiness.LabelPrepullPrefix: the other labels are the readiness controller's.
//
// Everything known is held in one model behind one lock; feeds change it, and one loop evaluates what has changed. Start
// from New.
package controller
