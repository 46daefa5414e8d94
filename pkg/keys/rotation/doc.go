// Package rotation changes the states of signing keys ([keys.Ring]) so that no bound
// token is refused: a key is published before it signs, and verifies until the last token
// that it signed has expired.
//
// It keeps true:
//
//   - A key signs only after everybody had the time to fetch it, and goes only after
//     everything that it signed is dead: bound tokens by their time, legacy ones because
//     no token Secret carries one. Force overrules both, by a word of a person alone.
//   - A change is one write: a rename in a directory, an update with a resourceVersion of
//     a Secret. Where a directory needs two, to destroy a private half, the state between
//     them counts as the one after them, and the next run ends what was begun.
//   - What is decided is pure ([Rotate], [Prune]); a [Store] does one change of it.
//   - The same command again does nothing, or the next step. Nothing is remembered but in
//     the keys' own files.
//   - Of a Secret, the public halves are mirrored to a ConfigMap, which verifiers mount. The
//     mirror is never behind: a key is in it before it counts as published.
package rotation
