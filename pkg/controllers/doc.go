// Package controllers is the ServiceAccount control plane as a library: the controllers that
// live in kube-controller-manager, and more, in one [Suite].
//
//	suite, err := controllers.New(controllers.Options{
//		Config: config,
//		Keys:   controllers.KeyFiles(keys.Files{PrivateKeyFile: "sa.key"}),
//		RootCA: controllers.CAFile("ca.crt"),
//	})
//	...
//	err = suite.Run(ctx)
//
// What the suite keeps true is described by the packages below this one, of which each holds one
// controller. They can be used alone, but need more wiring: informers that are shared, the
// signing-key check, and what happens when keys or the CA change.
//
// # Life
//
// [New] checks options and does no I/O. [Suite.Run] reads files first, then waits for the API
// server, and works until its context ends. Several processes may run a suite against one cluster
// only if one of them works at a time: use [Options.Elect], or a controller-runtime manager, to
// which a suite can be added as it is ("mgr.Add(suite)").
//
// # Informers of the caller
//
// [Options.Namespaces] and [Options.ServiceAccounts] may be informers that the caller has anyway.
// They may be filtered and trimmed. So nothing that comes from them is written back whole, and
// before an object is deleted, or a token removed, because an account or a namespace is missing
// there or says nothing against it, the API server is asked.
//
// # Rights
//
// The directory manifests/rbac has a role for each controller.
package controllers
