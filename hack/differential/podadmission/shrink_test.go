package podadmission

import (
	"encoding/json"
	"maps"
	"slices"
)

// shrink removes fields and list elements while fails returns true, and returns the smallest
// request that it finds.
func shrink(r *request, fails func(*request) bool) *request {
	text, err := json.Marshal(r)
	if err != nil {
		return r
	}
	var tree any
	if err := json.Unmarshal(text, &tree); err != nil {
		return r
	}
	still := func() bool {
		smaller, ok := fromTree(tree)

		return ok && fails(smaller)
	}
	if !still() {
		return r
	}
	for again := true; again; {
		again = prune(tree, func(any) {}, still)
	}
	smallest, _ := fromTree(tree)

	return smallest
}

func fromTree(tree any) (*request, bool) {
	text, err := json.Marshal(tree)
	if err != nil {
		return nil, false
	}
	var r request

	return &r, json.Unmarshal(text, &r) == nil
}

// prune removes what it can below node, and returns true if it removed anything. replace
// replaces node by another list.
func prune(node any, replace func(any), still func() bool) bool {
	pruned := false
	switch node := node.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(node)) {
			value := node[key]
			delete(node, key)
			if still() {
				pruned = true

				continue
			}
			node[key] = value
			pruned = prune(value, func(v any) { node[key] = v }, still) || pruned
		}
	case []any:
		for i := len(node) - 1; i >= 0; i-- {
			shorter := slices.Delete(slices.Clone(node), i, i+1)
			replace(shorter)
			if still() {
				node, pruned = shorter, true

				continue
			}
			replace(node)
			list := node
			pruned = prune(list[i], func(v any) { list[i] = v }, still) || pruned
		}
	}

	return pruned
}
