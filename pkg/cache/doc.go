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
// # Liveness
//
// A cache that the API server no longer reaches looks like one in which nothing changes. Where a
// yes to a token depends on a cached object, the cache counts only while it is alive
// ([Liveness]): less than 10 s ago it received an event, or the API server confirmed that it has
// missed none. Otherwise the object is read live.
//
//   - Bookmarks come once a minute, and client-go notices a frozen connection after 45 s: both
//     are too seldom for 10 s.
//   - A request that is answered does not show that the watch is alive: it may use another
//     connection. The probe therefore asks for the changes after the version of the cache, by a
//     second watch that lasts a second. If there are none, the cache is right, whatever became of
//     its own watch; if there is one, only an event of its own watch makes it count again.
//   - An API server that is cut off from etcd has no changes either, so that the probe begins with
//     a consistent list of one object.
//   - Probes start only when the cache is asked for and had no event for 5 s: two requests, and
//     at most one probe at a time. An idle process makes no request, and one with many events none.
//     Nothing waits for a probe: meanwhile a cache that is not alive is passed over.
//
// The functions return informers that are not started. They and the objects in them are safe
// for concurrent use; objects must not be changed.
package cache
