package keys_test

import (
	"fmt"

	"github.com/sakeeper/sakeeper/pkg/keys"
)

// The files that kube-controller-manager and kube-apiserver are given make a set:
// one key that signs, and all keys that are still verified.
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
	// Output:
	// signs:  SoABiieYuNx4UdqYvZRVeuC6SihxgLrhLy9peHMHpTc
	// verifies: ES256 SoABiieYuNx4UdqYvZRVeuC6SihxgLrhLy9peHMHpTc
	// verifies: RS256 JHJehTTTZlsspKHT-GaJxK7Kd1NQgZJu3fyK6K_QDYU
}
