// Package podadmission decides admission reviews of pods by the rules of
// [github.com/sakeeper/sakeeper/pkg/podadmission/rules]. [Reviewer.MutateHandler] and
// [Reviewer.ValidateHandler] answer them over HTTP, for any server; [Reviewer.Mutate] and
// [Reviewer.Validate] are plain functions of a request.
//
// It guarantees:
//
//   - Nothing is allowed unchecked. A request is refused unless it creates a pod, changes the
//     ephemeral containers of a pod, or is one of the requests for pods that have no rule
//     (update, delete). An object that is not a pod of the request's namespace is refused.
//   - A patch only adds, so fields that this build does not know are kept. A pod that has
//     everything gets no patch.
//   - The ServiceAccount comes from the cache, or from one live read. A request waits only for a
//     ServiceAccount that a controller creates, on the watch, and so briefly that there is time
//     left to answer.
//
// The cache may lag without harm, as in kube-apiserver, also if it is cut off: a ServiceAccount that
// it does not have is read live. A pod that is admitted for a deleted one gets no token, because the
// kubelet requests it from the API server, and the token in a Secret is refused with the deletion of
// its ServiceAccount. Old imagePullSecrets or limits on Secrets apply as long as the cache lags.
//
// RBAC: get, list and watch serviceaccounts; get secrets with [rules.SecretTokens] only.
package podadmission
