package tokenrequest

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/clientcmd"
)

func TestRender(t *testing.T) {
	where := target{namespace: "team", secret: "s", ca: []byte("pem")}
	cases := map[string]struct {
		in   tokenSpec
		want map[string]string
	}{
		"token":  {in: tokenSpec{account: "robot", format: formatToken, tokenKey: "token"}, want: map[string]string{"token": "t.o.k", "ca.crt": "pem", "namespace": "team"}},
		"custom": {in: tokenSpec{account: "robot", format: formatCustom, tokenKey: "password"}, want: map[string]string{"password": "t.o.k", "ca.crt": "pem", "namespace": "team"}},
		"Argo CD": {in: tokenSpec{account: "robot", format: formatArgoCD, server: "https://api"}, want: map[string]string{
			"name": "s", "server": "https://api",
			"config": `{"bearerToken":"t.o.k","tlsClientConfig":{"insecure":false,"caData":"cGVt"}}`,
		}},
		"kubeconfig": {in: tokenSpec{account: "robot", format: formatKubeconfig, server: "https://api"}, want: map[string]string{"kubeconfig": `apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: cGVt
    server: https://api
  name: kubernetes
contexts:
- context:
    cluster: kubernetes
    namespace: team
    user: team/robot
  name: team/robot
current-context: team/robot
kind: Config
users:
- name: team/robot
  user:
    token: t.o.k
`}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			data, err := tc.in.render("t.o.k", where)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for key, value := range data {
				got[key] = string(value)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(slices.Sorted(maps.Keys(data)), tc.in.keys()); diff != "" {
				t.Errorf("keys (-rendered +said):\n%s", diff)
			}
		})
	}
}

func TestAKubeconfigIsComplete(t *testing.T) {
	spec := tokenSpec{account: "robot", format: formatKubeconfig, server: "https://api"}
	data, err := spec.render("t.o.k", target{namespace: "team", secret: "s", ca: []byte("pem")})
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(data["kubeconfig"])
	if err != nil || config.Host != "https://api" || config.BearerToken != "t.o.k" || string(config.CAData) != "pem" {
		t.Errorf("read back as another configuration: %v", err)
	}
}
