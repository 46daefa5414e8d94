// Package agent keeps valid tokens of a ServiceAccount in files: for processes outside a
// cluster, for other audiences than that of kubelet's token, and for pods whose token kubelet
// no longer renews.
//
// Each file has its own token, from the TokenRequest API. It is requested at the start, when it
// must be renewed ([token.Validity.RenewAt]), when the API server refuses it though it had
// accepted it ([Config.Review]), and when the file was removed. The old token
// stays in the file until it is replaced. Errors are retried without a limit, at most a minute
// apart. A token is requested only if the file can be written.
//
// A file is replaced atomically: a reader sees either the old token or the new one.
// [RenameWriter] renames a new file over the old one; [SymlinkWriter] swaps the symlink of a
// directory, as kubelet does, for readers that watch it.
//
// Hooks run after a file was written, in parallel with the files and with each other. Each is
// retried until it succeeds.
//
// Tokens are in memory only while they are written and reviewed. RBAC: create serviceaccounts/token of the
// ServiceAccount, which gives all rights of this ServiceAccount.
package agent
