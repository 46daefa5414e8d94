package keys_test

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/go-jose/go-jose/v4"

	"github.com/sakeeper/sakeeper/pkg/keys"
)

// Load the key files that kube-controller-manager and kube-apiserver use: one key that signs, and
// all keys that verify.
func Example() {
	set, err := keys.Files{
		PrivateKeyFile: "testdata/insecure-p256-sec1.pem",
		KeyFiles:       []string{"testdata/insecure-rsa2048-public.pem"},
	}.Load()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("signs: ", set.Signing())
	for _, key := range set.Verification() {
		fmt.Println("verifies:", key.Algorithm(), key.ID())
	}
	fmt.Println("JWKS of", len(set.JWKS().Keys), "keys")
	// Output:
	// signs:  SoABiieYuNx4UdqYvZRVeuC6SihxgLrhLy9peHMHpTc
	// verifies: ES256 SoABiieYuNx4UdqYvZRVeuC6SihxgLrhLy9peHMHpTc
	// verifies: RS256 JHJehTTTZlsspKHT-GaJxK7Kd1NQgZJu3fyK6K_QDYU
	// JWKS of 2 keys
}

// Follow a key directory: the keys are reloaded when its files change.
func ExampleDirectory_Open() {
	loader, err := keys.Directory("/does/not/exist").Open()
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	loader.OnChange(func() { fmt.Println("signs now:", loader.Get().Signing()) })
	_ = loader.Run(ctx) // returns nil when ctx ends
	// Output: --key-dir: /does/not/exist: no such file or directory
}

// Make a key and a set in memory.
func ExampleNewSet() {
	key, err := keys.Generate(jose.ES256)
	if err != nil {
		fmt.Println(err)
		return
	}
	set := keys.NewSet(key)
	fmt.Println(set.Signing().PublicKey().Algorithm(), len(set.JWKS().Keys))
	// Output: ES256 1
}
