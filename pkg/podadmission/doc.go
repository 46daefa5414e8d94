// Package podadmission answers admission reviews of pods by the rules of
// [github.com/sakeeper/sakeeper/pkg/podadmission/rules]. It knows no HTTP.
//
// It keeps true:
//
//   - Nothing is let in unchecked. What is not the creation of a pod or a change of
//     its ephemeral containers, and not one of the requests for pods that have no rule
//     (update, delete), is refused, and so is an object that is no pod of the
//     request's namespace.
//   - A patch has the additions and nothing else, so fields that this build does not
//     know stay. A pod that needs nothing gets no patch.
//   - Nobody waits without need: the ServiceAccount comes from the cache, or from one
//     live read. Only for accounts that a controller makes there is a wait, on the
//     watch, that ends early enough for an answer.
//
// RBAC: get, list and watch serviceaccounts; get secrets with
// [admission.SecretTokens] alone.
package podadmission
