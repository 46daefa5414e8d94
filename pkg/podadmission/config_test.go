package podadmission

import (
	"testing"

	"k8s.io/client-go/kubernetes/fake"

	"github.com/sakeeper/sakeeper/pkg/podadmission/rules"
)

func TestConfig(t *testing.T) {
	client := fake.NewClientset()
	informer, err := Accounts(client)
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		in   Config
		want string
	}{
		"no cache":          {in: Config{Client: client.CoreV1()}, want: "podreview: Accounts and Client are required"},
		"no client":         {in: Config{Accounts: informer}, want: "podreview: Accounts and Client are required"},
		"nothing else":      {in: Config{Accounts: informer, Client: client.CoreV1()}},
		"no such scope":     {in: Config{Accounts: informer, Client: client.CoreV1(), Settings: rules.Settings{SecretReferenceScope: "x"}}, want: `podreview: secret reference scope "x" is neither "in-tree" nor "all"`},
		"no token Secrets":  {in: Config{Accounts: informer, Client: client.CoreV1(), Settings: rules.Settings{TokenVolumeSource: rules.SecretTokens}}, want: "podreview: Secrets is required where tokens come from Secrets"},
		"with their client": {in: Config{Accounts: informer, Client: client.CoreV1(), Secrets: client.CoreV1(), Settings: rules.Settings{TokenVolumeSource: rules.SecretTokens}}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := ""
			if _, err := New(tc.in); err != nil {
				got = err.Error()
			}
			if got != tc.want {
				t.Errorf("got %q", got)
			}
		})
	}
}
