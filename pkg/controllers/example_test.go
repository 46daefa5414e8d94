package controllers_test

import (
	"context"
	"fmt"

	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/pkg/controllers"
	"github.com/sakeeper/sakeeper/pkg/keys"
)

// Run works until its context ends. Here the files do not exist, and all of them are named.
func Example() {
	suite, err := controllers.New(controllers.Options{
		Config: &rest.Config{Host: "https://127.0.0.1:6443"},
		Keys:   controllers.KeyFiles(keys.Files{PrivateKeyFile: "/does/not/exist/sa.key"}),
		RootCA: controllers.CAFile("/does/not/exist/ca.crt"),
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(suite.Run(context.Background()))
	// Output:
	// --service-account-private-key-file: open /does/not/exist/sa.key: no such file or directory
	// --root-ca-file: open /does/not/exist/ca.crt: no such file or directory
}

// New does no I/O, and returns every problem at once.
func ExampleNew() {
	_, err := controllers.New(controllers.Options{Controllers: []string{"*", "tokens"}})
	fmt.Println(err)
	// Output:
	// controllers: Config is required
	// controllers: Controllers: "tokens" is not a controller; there are serviceaccount-controller, serviceaccount-token-controller, root-ca-certificate-publisher-controller, legacy-serviceaccount-token-cleaner-controller, token-generation-controller, token-request-controller, token-inventory-controller, service-account-template-controller, pull-secret-copy-controller
	// controllers: Keys is required by the serviceaccount-token-controller and the token-generation-controller
	// controllers: RootCA is required by the root-ca-certificate-publisher-controller, the serviceaccount-token-controller and the token-generation-controller
}

// The defaults of all settings, for a program that shows them in its help.
func ExampleDefaults() {
	defaults := controllers.Defaults()
	fmt.Println(defaults.ServiceAccount.Names, defaults.TokenSecret.Workers, defaults.TokenCleaner.Period)
	// Output: [default] 10 8760h0m0s
}
