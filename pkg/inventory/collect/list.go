package collect

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// chunk is how many objects a list returns at once.
	chunk = 500
	// chunkBytes is how large a chunk of Secrets of any type should be at most: one may have 1 MiB.
	chunkBytes = 8 << 20
	// firstDeepChunk is the first limit of such a list, when their size is not known.
	firstDeepChunk = 16
)

// pages calls next for each chunk of a list, until there are no more. next returns the metadata of
// the list, and the limit of the next chunk.
func pages(ctx context.Context, opts metav1.ListOptions, next func(context.Context, metav1.ListOptions) (continueToken string, limit int64, err error)) error {
	for {
		token, limit, err := next(ctx, opts)
		var status apierrors.APIStatus
		switch expired := apierrors.IsResourceExpired(err) && opts.Continue != ""; {
		case expired && asStatus(err, &status) && status.Status().Continue != "":
			// etcd has compacted the version of the first chunk: go on with what there is now.
			token, limit = status.Status().Continue, opts.Limit
		case err != nil:
			return err
		}
		if token == "" {
			return nil
		}
		opts.Continue, opts.Limit = token, limit
	}
}
