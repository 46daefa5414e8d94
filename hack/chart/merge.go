package main

import "slices"

// An edit makes a variant of lines, the base.
type edit struct {
	when string
	// deleted are the lines of the base that the variant lacks.
	deleted map[int]bool
	// inserted are the lines that the variant has before each line of the base, and after its last.
	inserted map[int][]string
}

// diff returns how a variant differs from base, in as few lines as possible.
func diff(base, variant []string, when string) edit {
	// common[i][j] is the length of the longest common subsequence of base[i:] and variant[j:].
	common := make([][]int, len(base)+1)
	for i := range common {
		common[i] = make([]int, len(variant)+1)
	}
	for i, line := range slices.Backward(base) {
		for j, other := range slices.Backward(variant) {
			if line == other {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	e := edit{when: when, deleted: map[int]bool{}, inserted: map[int][]string{}}
	for i, j := 0, 0; i < len(base) || j < len(variant); {
		switch {
		case i < len(base) && j < len(variant) && base[i] == variant[j]:
			i, j = i+1, j+1
		case j == len(variant) || i < len(base) && common[i+1][j] >= common[i][j+1]:
			e.deleted[i] = true
			i++
		default:
			e.inserted[i] = append(e.inserted[i], variant[j])
			j++
		}
	}
	return e
}

// merge returns a template that renders base and, under the condition of an edit, its variant. Edits
// whose conditions hold together must change different lines.
func merge(base []string, edits []edit) []string {
	insertedAt := func(i int) bool {
		return slices.ContainsFunc(edits, func(e edit) bool { return len(e.inserted[i]) > 0 })
	}
	var all []string
	for i := 0; i <= len(base); i++ {
		for _, e := range edits {
			if lines := e.inserted[i]; len(lines) > 0 {
				all = append(all, "{{- if "+e.when+" }}")
				all = append(all, lines...)
				all = append(all, "{{- end }}")
			}
		}
		if i == len(base) {
			break
		}
		by := slices.IndexFunc(edits, func(e edit) bool { return e.deleted[i] })
		if by < 0 {
			all = append(all, base[i])
			continue
		}
		if !edits[by].deleted[i-1] || insertedAt(i) {
			all = append(all, "{{- if not ("+edits[by].when+") }}")
		}
		all = append(all, base[i])
		if !edits[by].deleted[i+1] || insertedAt(i+1) {
			all = append(all, "{{- end }}")
		}
	}
	return all
}
