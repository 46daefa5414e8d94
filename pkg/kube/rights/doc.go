// Package rights finds the rights that a process lacks: a [Monitor] sees every response of the API
// server to the clients of a configuration, and names what the process may not do.
//
// A response with the code 403 alone proves no missing right: quotas, admission webhooks and
// policies, and namespaces that are being deleted refuse with the same code and reason, and only the
// text of the response differs. So the API server is asked by a SelfSubjectAccessReview for exactly
// that right. If it says no, the right is missing, and it is asked again after one second, then with a
// delay that doubles up to 5 s, until it says yes or the right is not needed any more
// ([Monitor.OnlyWhile]). That works with any authorizer, and needs no right beyond those of
// system:basic-user, which every authenticated user has by default. Where even these reviews are
// refused, the 403 counts as proof for 10 minutes, within which a controller has tried again.
//
// While nothing is refused, no request is made. That is also why the rights of a role are not
// reviewed at the start: most are used at once, by the first lists and watches, and the others are
// named within a second of their first use. [Monitor.Expect] is for a right whose absence must be
// known before.
//
// Requests for URLs that are not resources, such as /version, are not looked at: sakeeper can do
// without each of them.
package rights
