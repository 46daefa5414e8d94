// Package tokens compares what pkg/authenticator says of a token with what the verifier
// of kube-apiserver says, for generated tokens in generated states of a cluster.
//
// The verifier is built with the packages of its own release; ours runs as a process
// (TestAnswerTokens of pkg/authenticator) and is asked in JSON.
//
//	DIFFERENTIAL_CASES=100000 go test ./tokens      more of them
//	DIFFERENTIAL_SEED=... go test ./tokens          the same ones again
//
// Where ours is stricter on purpose, nothing is generated: algorithms other than a key's
// own, and white space, with which no client can send a token. Private claims that ours does
// not know are generated, and only ours must refuse them.
package tokens
