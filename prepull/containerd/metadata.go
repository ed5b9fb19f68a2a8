package containerd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
)

// metadataTimeout bounds the wait for the lock on containerd's metadata: who holds it is a containerd that comes up.
const metadataTimeout = 100 * time.Millisecond

// committedSnapshots reads which snapshots a containerd that is not up has, from its metadata.
// Source: containerd core/metadata/buckets.go@v2.4.2: v1/<namespace>/snapshots/<snapshotter>/<name>.
func committedSnapshots(root, namespace, snapshotter string) (map[string]bool, error) {
	names := map[string]bool{}
	path := filepath.Join(root, "io.containerd.metadata.v1.bolt", "meta.db")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return names, nil // it has never run
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: metadataTimeout})
	if err != nil {
		return nil, fmt.Errorf("open containerd's metadata: %w", err)
	}
	err = db.View(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket([]byte("v1"))
		for _, name := range []string{namespace, "snapshots", snapshotter} {
			if bucket == nil {
				return nil
			}
			bucket = bucket.Bucket([]byte(name))
		}
		if bucket == nil {
			return nil
		}
		return bucket.ForEachBucket(func(name []byte) error {
			names[string(name)] = true
			return nil
		})
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return nil, fmt.Errorf("read containerd's metadata: %w", err)
	}
	return names, nil
}
