// Package cache has the informers of sakeeper and the reduced objects that they keep.
//
//   - Only objects that a controller works on are listed and watched: token Secrets by their
//     type, root CA ConfigMaps by their name. Other Secrets and ConfigMaps cost nothing.
//   - No cache holds the bytes of a token. Of a Secret with a token, only values that
//     decisions need are kept ([TokenSecret]).
//   - A reduced object has a type of its own or is documented as reduced: an object that
//     lacks anything but managedFields must never be written back whole, unless the write
//     replaces what is missing ([RootCA]).
//   - A cache holds values (a hash, a name), never verdicts ("is right"): a verdict becomes
//     wrong when the CA, the key or the ServiceAccount changes.
//
// The functions return informers that are not started. They and the objects in them are safe
// for concurrent use; objects must not be changed.
package cache
