package podadmission

import (
	"testing"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/sakeeper/sakeeper/pkg/podadmission/rules"
)

func TestConfig(t *testing.T) {
	client := fake.NewClientset()
	informer, err := Accounts(client)
	if err != nil {
		t.Fatal(err)
	}
	plain := informers.NewSharedInformerFactory(client, 0).Core().V1().ServiceAccounts().Informer()
	const required = "podadmission: Client and either Accounts or ServiceAccounts are required"
	cases := map[string]struct {
		in   Config
		want string
	}{
		"no informer":        {in: Config{Client: client.CoreV1()}, want: required},
		"no client":          {in: Config{Accounts: informer}, want: required},
		"two informers":      {in: Config{Accounts: informer, ServiceAccounts: plain, Client: client.CoreV1()}, want: "podadmission: Accounts and ServiceAccounts exclude each other"},
		"nothing else":       {in: Config{Accounts: informer, Client: client.CoreV1()}},
		"the caller's":       {in: Config{ServiceAccounts: plain, Client: client.CoreV1()}},
		"an unknown scope":   {in: Config{Accounts: informer, Client: client.CoreV1(), Settings: rules.Settings{SecretReferenceScope: "x"}}, want: `podadmission: secret reference scope "x" is neither "in-tree" nor "all"`},
		"no token Secrets":   {in: Config{Accounts: informer, Client: client.CoreV1(), Settings: rules.Settings{TokenVolumeSource: rules.SecretTokens}}, want: "podadmission: Secrets is required if tokens come from Secrets"},
		"with token Secrets": {in: Config{Accounts: informer, Client: client.CoreV1(), Secrets: client.CoreV1(), Settings: rules.Settings{TokenVolumeSource: rules.SecretTokens}}},
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
