// Package workqueue is the work queue that every controller uses, and the adapter from
// informers to it.
//
//   - A key is synced after it was added, by one worker at a time.
//   - A key that fails is retried with a delay that doubles up to a cap, without a limit on
//     attempts. The gauge sakeeper_failing_keys counts it until it succeeds.
//   - A panic in sync is a failure of that key, not of the process.
//   - [Queue.Ready] returns true once every key of the initial lists was handled, and
//     does not become false again.
//   - [Queue.Run] returns after its last worker has.
//   - A controller sees every deletion, whether the informer got it as an event, as a
//     tombstone after a gap in the watch, or as an update that replaced an object by
//     another of the same name (see [Events]).
package workqueue
