// Package workqueue is the one work-queue loop of all controllers, and the adapter
// between informers and it.
//
// It keeps true:
//
//   - A key that was added is synced after it was added, by one worker at a time.
//   - No key is ever given up: a failed one is retried with a delay that doubles
//     up to a cap, without a limit on attempts, and is visible in the gauge
//     sakeeper_failing_keys until it succeeds.
//   - A panic in sync is a failure of that key, not of the process.
//   - [Queue.Ready] turns true when every key that the initial lists queued has
//     been handled once, and stays true.
//   - [Queue.Run] returns after its last worker has.
//   - Deletions reach a controller however the informer noticed them: as an
//     event, as a tombstone after a gap in the watch, or as an update that
//     replaced an object by another of the same name (see [Events]).
package workqueue
