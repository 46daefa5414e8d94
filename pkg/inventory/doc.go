// Package inventory says which ServiceAccount tokens a cluster holds in Secrets, who uses each of
// them, and what its bearer may do.
//
// It is pure: package collect reads the objects, and [Find] turns them into findings. Secrets are
// reduced by [Scanner.Secret] as they are read, after which no token byte is kept: findings can be
// printed. What could not be read is unknown in a finding, and never counts as absent.
package inventory
