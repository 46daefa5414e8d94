// Package cache says what sakeeper caches of a cluster, and what it never
// caches.
//
// It keeps true:
//
//   - Only objects that a controller works on are fetched: token Secrets by their
//     type, root CA ConfigMaps by their name. What other Secrets and ConfigMaps a
//     cluster has costs nothing.
//   - No cache holds token bytes. Of a Secret with a token only values that
//     decisions need are kept ([TokenSecret]).
//   - What was reduced has a type of its own or is documented as reduced, because
//     an object from which anything but managedFields was dropped must never be
//     written back whole, unless what was dropped is what is written anew ([RootCA]).
//   - A cache holds values (a hash, a name), never verdicts ("is right"): a
//     verdict goes stale when the CA, the key or the account changes.
//
// Informers made here are not started.
package cache
