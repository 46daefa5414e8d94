package controllers

import (
	"testing"
	"testing/synctest"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/controllers/pullsecretcopy"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokenrequest"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokensecret"
	"github.com/sakeeper/sakeeper/pkg/kube/rights"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/fakeapi"
)

func TestRightsAreNotNeededWhereNothingIsDone(t *testing.T) {
	other := rights.Right{Verb: "create", Resource: "serviceaccounts"}
	cases := map[string]struct {
		inRight      rights.Right
		inNamespace  string
		inController string // beside the token-request-controller
		inAll        bool   // namespaces are served
		inUnsynced   bool
		want         bool
	}{
		"in a namespace that exists":               {inRight: other, inNamespace: "team", want: true},
		"in one that is gone":                      {inRight: other, inNamespace: "gone"},
		"before it is known which there are":       {inRight: other, inNamespace: "gone", inUnsynced: true, want: true},
		"in all namespaces":                        {inRight: requestTokens(), want: true},
		"to request tokens, where they are served": {inRight: requestTokens(), inNamespace: "served", want: true},
		"and where not":                            {inRight: requestTokens(), inNamespace: "team"},
		"they are served everywhere":               {inRight: requestTokens(), inNamespace: "team", inAll: true, want: true},
		"to write them, where they are served":     {inRight: patchSecrets(), inNamespace: "served", want: true},
		"to write, and where not":                  {inRight: patchSecrets(), inNamespace: "team"},
		"another controller writes Secrets":        {inRight: patchSecrets(), inNamespace: "team", inController: tokensecret.Name, want: true},
		"and so does one that copies them":         {inRight: patchSecrets(), inNamespace: "team", inController: pullsecretcopy.Name, want: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := fakeapi.New(testkit.Namespace("team"), testkit.Namespace("served", testkit.WithLabel(api.TokenRequestsLabel, api.TokenRequestsAllowed)))
				namespaces, err := cache.Namespaces(client)
				if err != nil {
					t.Fatal(err)
				}
				p := &parts{namespaces: namespaces, enabled: map[string]bool{tokenrequest.Name: true, tc.inController: true}}
				p.options.TokenRequest.AllNamespaces = tc.inAll
				if !tc.inUnsynced {
					defer testkit.Start(testkit.Context(t), t, testkit.Informer(namespaces))()
					synctest.Wait()
				}
				if got := p.needs(tc.inRight, rights.Target{Namespace: tc.inNamespace}); got != tc.want {
					t.Errorf("needed: %t", got)
				}
			})
		})
	}
}
