package controllers

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"

	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/controllers/accounttemplate"
	"github.com/sakeeper/sakeeper/pkg/controllers/pullsecretcopy"
	"github.com/sakeeper/sakeeper/pkg/controllers/rootca"
	"github.com/sakeeper/sakeeper/pkg/controllers/serviceaccount"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokencleaner"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokengeneration"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokeninventory"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokenrequest"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokensecret"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestOnlyWhatIsNeededIsMade(t *testing.T) {
	cases := map[string]struct {
		in            []string
		want          []string
		wantInformers int
	}{
		"all":            {in: []string{"*"}, want: []string{tokencleaner.Name, rootca.Name, serviceaccount.Name, tokensecret.Name, tokengeneration.Name, tokeninventory.Name}, wantInformers: 4},
		"accounts only":  {in: []string{"serviceaccount"}, want: []string{serviceaccount.Name}, wantInformers: 2},
		"tokens only":    {in: []string{"serviceaccount-token"}, want: []string{tokensecret.Name}, wantInformers: 3},
		"clean-up only":  {in: []string{"legacy-service-account-token-cleaner"}, want: []string{tokencleaner.Name}, wantInformers: 3},
		"the CA only":    {in: []string{"root-ca-cert-publisher"}, want: []string{rootca.Name}, wantInformers: 2},
		"requests only":  {in: []string{"token-request"}, want: []string{tokenrequest.Name}, wantInformers: 3},
		"requests too":   {in: []string{"*", "token-request"}, want: []string{tokencleaner.Name, rootca.Name, serviceaccount.Name, tokensecret.Name, tokengeneration.Name, tokeninventory.Name, tokenrequest.Name}, wantInformers: 5},
		"inventory only": {in: []string{"token-inventory"}, want: []string{tokeninventory.Name}, wantInformers: 1},
		"inventory too":  {in: []string{"serviceaccount", "token-inventory"}, want: []string{serviceaccount.Name, tokeninventory.Name}, wantInformers: 2},
		"templates only": {in: []string{"service-account-template"}, want: []string{accounttemplate.Name}, wantInformers: 3},
		"copies only":    {in: []string{"pull-secret-copy"}, want: []string{pullsecretcopy.Name}, wantInformers: 6},
		"they share":     {in: []string{"service-account-template", "pull-secret-copy"}, want: []string{pullsecretcopy.Name, accounttemplate.Name}, wantInformers: 7},
		"all but the CA": {in: []string{"*", "-root-ca-cert-publisher"}, want: []string{tokencleaner.Name, serviceaccount.Name, tokensecret.Name, tokengeneration.Name, tokeninventory.Name}, wantInformers: 3},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			o := complete()
			o.Controllers, o.TokenGeneration.Mode = tc.in, tokengeneration.ModeAll
			o.TokenInventory.Interval = time.Hour
			o.PullSecretCopy.SourceNamespaces = []string{"registry"}
			suite := mustNew(t, o)
			if err := suite.Load(t.Context()); err != nil {
				t.Fatal(err)
			}
			if suite.keys == nil && suite.options.NeedsKeys() {
				t.Fatal("no keys")
			}
			p, err := newParts(suite.options, suite.client, record.NewFakeRecorder(1), suite.keys, constantCA())
			if err != nil {
				t.Fatal(err)
			}
			defer p.discard()
			if err := p.makeControllers(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, slices.Sorted(maps.Keys(p.controllers))); diff != "" {
				t.Errorf("controllers (-want +got):\n%s", diff)
			}
			if got := len(p.informers); got != tc.wantInformers {
				t.Errorf("%d informers, want %d", got, tc.wantInformers)
			}
		})
	}
}

func constantCA() constant[cabundle.Bundle] { return constant[cabundle.Bundle]{testkit.Bundle()} }

func TestEachControllerHasItsUserAgent(t *testing.T) {
	p := &parts{options: Options{Config: &rest.Config{UserAgent: "sakeeper-controllers/v1"}}}
	if got := p.configFor("some-controller").UserAgent; got != "sakeeper-controllers/v1/some-controller" {
		t.Errorf("got %q", got)
	}
	if got := p.options.Config.UserAgent; got != "sakeeper-controllers/v1" {
		t.Errorf("the shared configuration changed: %q", got)
	}
}
