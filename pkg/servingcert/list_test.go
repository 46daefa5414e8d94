package servingcert

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// list is a value of the annotation, with a field that no API server knows.
const list = `
- name: validate.pods.sakeeper.io
  clientConfig:
    service: {namespace: sakeeper-system, name: sakeeper-webhook, path: /validate/pods}
  newField: {a: 1}
`

// listed is a configuration with that annotation, and a webhook for each bundle.
func listed(list, filledFrom string, bundles ...[]byte) *admissionregistrationv1.ValidatingWebhookConfiguration {
	c := validating(bundles...)
	c.Annotations = map[string]string{api.WebhooksAnnotation: list}
	if filledFrom != "" {
		c.Annotations[api.FilledWebhooksAnnotation] = filledFrom
	}
	return c
}

func TestDecideOnLists(t *testing.T) {
	l := newLives(t)
	good := l.first.bundle()
	hash := (&Configuration{List: list}).listHash()
	const configuration = "ValidatingWebhookConfiguration sakeeper-webhook: "
	cases := map[string]struct {
		in          *admissionregistrationv1.ValidatingWebhookConfiguration
		inContents  contents
		inReadyFor  time.Duration
		inNotReady  bool
		wantFilled  bool
		wantBundle  bool // written to the webhooks that are there
		wantDelay   time.Duration
		wantProblem string
	}{
		"an empty list is filled in":                               {in: listed(list, ""), inReadyFor: fillDelay, wantFilled: true},
		"one that another client has emptied":                      {in: listed(list, hash), inReadyFor: time.Hour, wantFilled: true},
		"not before this process is ready":                         {in: listed(list, ""), inNotReady: true, wantDelay: servingInterval},
		"nor when it has just become ready":                        {in: listed(list, ""), inReadyFor: fillDelay / 4, wantDelay: fillDelay * 3 / 4},
		"a list that was filled in is kept":                        {in: listed(list, hash, good), inReadyFor: time.Hour},
		"its bundle is kept, too":                                  {in: listed(list, hash, nil), inReadyFor: time.Hour, wantBundle: true},
		"another list in the annotation replaces the one before":   {in: listed(list, "0011223344556677", good), inReadyFor: time.Hour, wantFilled: true},
		"until then that one is kept":                              {in: listed(list, "0011223344556677", nil), inNotReady: true, wantBundle: true, wantDelay: servingInterval},
		"a list that a user wrote is kept":                         {in: listed(list, "", good), inReadyFor: time.Hour},
		"without the annotation, an empty list stays empty":        {in: validating(), inReadyFor: time.Hour, wantProblem: "it has no webhooks and no annotation"},
		"without a CA, nothing is filled in":                       {in: listed(list, ""), inReadyFor: time.Hour, inContents: contents{}},
		"with a certificate of another CA, nothing is filled in":   {in: listed(list, ""), inReadyFor: time.Hour, inContents: contents{ca: l.first.ca, serving: l.unrelated.serving}},
		"a list that is no YAML":                                   {in: listed("{", ""), inReadyFor: time.Hour, wantProblem: "it is not a list of webhooks: "},
		"no list":                                                  {in: listed("a: b", ""), inReadyFor: time.Hour, wantProblem: "it is not a list of webhooks: "},
		"a list without webhooks":                                  {in: listed("[]", ""), inReadyFor: time.Hour, wantProblem: "the list is empty"},
		"a webhook of another service":                             {in: listed(strings.ReplaceAll(list, "name: sakeeper-webhook", "name: other"), ""), inReadyFor: time.Hour, wantProblem: "webhook validate.pods.sakeeper.io does not call " + host},
		"a webhook without clientConfig":                           {in: listed("[{name: a}]", ""), inReadyFor: time.Hour, wantProblem: "webhook a does not call " + host},
		"a bad list does not take the place of one that is in use": {in: listed("[]", hash, good), inReadyFor: time.Hour, wantProblem: "the list is empty"},
		"a null entry":                                             {in: listed("[null]", ""), inReadyFor: time.Hour, wantProblem: "webhook <nil> does not call " + host},
		"a clientConfig that is text":                              {in: listed("[{name: a, clientConfig: b}]", ""), inReadyFor: time.Hour, wantProblem: "webhook a does not call " + host},
		"a clientConfig with a service that is text":               {in: listed("[{name: a, clientConfig: {service: b}}]", ""), inReadyFor: time.Hour, wantProblem: "webhook a does not call " + host},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(name, "nothing is filled in") {
				tc.inContents = l.first
			}
			s := state{now: l.now, hosts: []string{host}, contents: tc.inContents, configurations: []*Configuration{reduceValidating(tc.in)}}
			s.found = newSecret(secretOf(t, tc.inContents))
			if !tc.inNotReady {
				s.readySince = l.now.Add(-tc.inReadyFor)
			}
			p := decide(s)
			var filled, bundle bool
			for _, r := range p.repairs {
				filled, bundle = filled || r.list != nil, bundle || len(r.webhooks) > 0
			}
			if filled != tc.wantFilled || bundle != tc.wantBundle || p.fillDelay != tc.wantDelay {
				t.Errorf("filled in: %t, only the bundle: %t, delay %v; want %t, %t, %v", filled, bundle, p.fillDelay, tc.wantFilled, tc.wantBundle, tc.wantDelay)
			}
			switch problems := strings.Join(p.badLists, "; "); {
			case tc.wantProblem == "" && problems != "", tc.wantProblem != "" && (!strings.HasPrefix(problems, configuration) || !strings.Contains(problems, tc.wantProblem)):
				t.Errorf("problems %q, want %q", problems, tc.wantProblem)
			}
		})
	}
}

// TestAListIsFilledIn by one patch, once the process has served for a while, and what is wrong
// with a list is an event.
func TestAListIsFilledIn(t *testing.T) {
	c := made(t, testkit.Instant())
	serving := false
	f := newFixture(t, nil, secretOf(t, c), listed(list, ""))
	f.cfg.MutatingName, f.cfg.Mutating = "", nil
	f.cfg.Serving = func() bool { return serving }
	sync := func(after time.Duration) time.Duration {
		t.Helper()
		f.clock.SetTime(f.clock.Now().Add(after))
		requeueAfter, err := f.sync(newContext(t), key{})
		if err != nil {
			t.Fatal(err)
		}
		return requeueAfter
	}
	for range 3 {
		if again := sync(time.Minute); again != servingInterval {
			t.Errorf("synced again after %v while it does not serve", again)
		}
	}
	if err := f.Ready(); err != nil {
		t.Errorf("an empty list is no obstacle, but %v", err)
	}
	serving = true
	ready := f.status.Load()
	f.status.Store(&status{unready: "not ready"})
	if again := sync(time.Minute); again != servingInterval {
		t.Errorf("synced again after %v when it was not ready", again)
	}
	f.status.Store(ready)
	sync(0)
	sync(-time.Hour) // the clock is set back
	if again := sync(fillDelay - time.Second); again != time.Second {
		t.Errorf("synced again after %v while it has served for 9 s", again)
	}
	if got := f.requests(t); len(got) > 0 {
		t.Fatalf("requests %v", got)
	}
	sync(time.Second)
	var body struct {
		Metadata metav1.ObjectMeta `json:"metadata"`
		Webhooks []struct {
			ClientConfig admissionregistrationv1.WebhookClientConfig `json:"clientConfig"`
			NewField     map[string]int                              `json:"newField"`
		} `json:"webhooks"`
	}
	patch, ok := f.client.Actions()[len(f.client.Actions())-1].(clienttesting.PatchAction)
	if !ok || patch.GetPatchType() != "application/merge-patch+json" {
		t.Fatalf("%v", f.client.Actions())
	}
	if err := json.Unmarshal(patch.GetPatch(), &body); err != nil {
		t.Fatal(err)
	}
	want := service()
	want.Service.Path, want.CABundle = new("/validate/pods"), c.bundle()
	if diff := cmp.Diff(want, body.Webhooks[0].ClientConfig); diff != "" || body.Webhooks[0].NewField["a"] != 1 || body.Metadata.ResourceVersion != testkit.ResourceVersion || body.Metadata.UID != testkit.OtherUID ||
		body.Metadata.Annotations[api.FilledWebhooksAnnotation] != (&Configuration{List: list}).listHash() {
		t.Errorf("%s: %s", patch.GetPatch(), diff)
	}
	expectEvent(t, f.recorder, "Normal FilledInWebhooks Filled in the webhooks of ValidatingWebhookConfiguration sakeeper-webhook, which is called from now on")

	if err := f.cfg.Validating.GetStore().Update(reduceValidating(listed("[]", ""))); err != nil {
		t.Fatal(err)
	}
	sync(0)
	sync(time.Second)
	expectEvent(t, f.recorder, "Warning InvalidWebhooks The list of webhooks is not filled in: ValidatingWebhookConfiguration sakeeper-webhook: its annotation sakeeper.io/webhooks cannot be used: the list is empty")
}

// expectEvent expects that event alone.
func expectEvent(t *testing.T, recorder *record.FakeRecorder, want string) {
	t.Helper()
	events := testkit.Events(recorder)
	if len(events) != 1 || strings.TrimSuffix(events[0], " involvedObject{kind=Secret,apiVersion=v1}") != want {
		t.Errorf("events %q, want %q", events, want)
	}
}

// TestOldWarningsAreForgotten: their texts quote what users write.
func TestOldWarningsAreForgotten(t *testing.T) {
	f := newFixture(t, nil)
	now := testkit.Instant()
	for _, tc := range []struct {
		text string
		at   time.Duration
		want int // events
	}{{"a", 0, 1}, {"b", 0, 1}, {"a", warningInterval - 1, 0}, {"c", warningInterval, 1}, {"a", warningInterval, 1}} {
		f.recordWarning(newContext(t), state{now: now.Add(tc.at)}, api.ReasonInvalidWebhooks, tc.text)
		if events := testkit.Events(f.recorder); len(events) != tc.want {
			t.Errorf("%s after %v: events %q", tc.text, tc.at, events)
		}
	}
	if len(f.warnings) != 2 {
		t.Errorf("kept %v", f.warnings)
	}
}
