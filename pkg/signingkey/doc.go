// Package signingkey keeps true that no more than one token is written with a signing
// key that the API server does not accept.
//
// After the start and after each change of the key, the first token that somebody
// wants to write is the canary: it is written, and the API server is asked about it
// by TokenReview. Whoever else wants to write a token meanwhile waits, and is woken
// when the answer is yes. A token must be written before it can be reviewed: the API
// server compares a legacy token with the copy in its Secret.
//
// Refused means refused by every review over a minute, because API servers lag. No
// token is written then, until the key is replaced or the API server accepts it
// after all, which is asked every now and then. No answer is neither yes nor no:
// nothing is written, and the question is repeated with a growing delay. In both
// cases [Check.Ready] names the key and what the API server says.
//
// When the key is replaced, a canary that is refused is taken out of its Secret,
// which then gets a token like any other; a process that ends before that leaves it
// to the repair of dead tokens. While signing fails, a few attempts are
// made in a second, whoever waits.
//
// A canary whose Secret was changed or deleted by somebody says nothing about the
// key: the next token takes its place.
//
// No token that the API server accepts is ever asked about twice, and none is kept
// after its answer.
package signingkey
