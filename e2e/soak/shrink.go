package main

import (
	"context"
	"slices"
)

// shrink returns a script that still fails, and of which no single step can be left out, unless ctx
// ends before. It is delta debugging: smaller and smaller pieces are left out.
func shrink(ctx context.Context, failing script, fails func(script) bool) script {
	for size := len(failing) / 2; size > 0; {
		shorter := false
		for at := 0; at < len(failing) && ctx.Err() == nil; {
			candidate := slices.Concat(failing[:at], failing[min(at+size, len(failing)):])
			if fails(candidate) {
				failing, shorter = candidate, true
			} else {
				at += size
			}
		}
		if ctx.Err() != nil {
			return failing
		}
		if !shorter || size > 1 {
			size /= 2
		}
	}
	return failing
}

// sharesKind returns true if both have violations of the same promise.
func sharesKind(a, b findings) bool {
	return slices.ContainsFunc(a, func(v violation) bool {
		return slices.ContainsFunc(b, func(other violation) bool { return v.kind == other.kind })
	})
}
