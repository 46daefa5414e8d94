package webhook

// reviewStack is what the deepest calls of a usual review need of their stack.
const reviewStack = 20 << 10

// growStack gives the goroutine a stack for a review in one step. A request of HTTP/2 has a
// new goroutine, whose stack begins with a few KiB: it would be doubled up to four times as
// the decoder descends, and each time its frames would be moved, which is a quarter of what
// decoding a small pod takes. See BenchmarkReviewInANewGoroutine.
//
//go:noinline
func growStack() {
	var room [reviewStack]byte
	use(&room)
}

// use keeps the compiler from leaving room out.
//
//go:noinline
func use(room *[reviewStack]byte) { room[0] = 1 }
