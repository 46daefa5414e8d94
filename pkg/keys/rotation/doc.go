// Package rotation changes the states of signing keys ([keys.Keyring]) so that no bound token
// is refused: a key is published before it signs, and verifies until the last token that it
// signed has expired.
//
//   - A key signs only after all verifiers had time to fetch it. It is removed only after all
//     tokens that it signed are invalid: bound tokens have expired, and no token Secret holds
//     a legacy token of it. Only a user can skip the waits, with [Settings.Force].
//   - [PlanRotation] and [PlanRemovals] are pure: they return a [Step], or when the next one is
//     possible. [ApplyStep] applies one to a [Store].
//   - A step is one write: a rename in a directory, or an update of a Secret with a
//     resourceVersion. To destroy a private half, a directory needs two writes; the state
//     between them counts as the one after them, and the next run completes it.
//   - If the same command runs again, it does nothing or the next step. All state is in the
//     files of the keys.
//   - The public halves of a Secret are mirrored to a ConfigMap, which verifiers mount. A key
//     is in the mirror before it counts as published.
package rotation
