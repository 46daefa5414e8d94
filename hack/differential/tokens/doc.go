// Package tokens compares the results of pkg/authenticator with those of the token
// authenticators of kube-apiserver, for generated tokens and generated cluster states.
//
// The verifier is built with the packages of its own release; ours runs as a process
// (TestAnswerTokens of pkg/authenticator) and is asked in JSON.
//
//	DIFFERENTIAL_CASES=100000 go test ./tokens      more cases
//	DIFFERENTIAL_SEED=... go test ./tokens          the same cases again
//
// Where ours is stricter on purpose, nothing is generated: algorithms other than a key's
// own, and white space, with which no client can send a token. Private claims that ours does
// not know are generated, and only ours must refuse them.
package tokens
