// Package agent keeps true that files hold tokens of a ServiceAccount that are good:
// for processes outside a cluster, for other audiences than kubelet's token has, and
// in pods where kubelet renews no more.
//
// Inputs: the API server's answers to TokenRequests, and the clock. Each file has a
// token of its own, asked for at the start and when it is due (pkg/token), or when
// the file is gone. What is there stays until its successor is there; failures are
// retried without end, at most a minute apart. No token is asked for that could not be
// written.
//
// A file changes at once: readers see the old token or the new one, whole. [Rename]
// renames a new file over the old one; [Swap] swaps the symlink of a directory, as
// kubelet does, for readers that watch for that.
//
// Hooks run after files have changed, beside the files and each other, and each is
// retried until it succeeds.
//
// Tokens are in memory only while they are written. RBAC: create serviceaccounts/token
// of the named ServiceAccount. Whoever may do that may do all that this ServiceAccount
// may.
package agent
