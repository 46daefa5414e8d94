package pullsecretcopy

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	clienttesting "k8s.io/client-go/testing"

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

var (
	readSource    = testkit.Request{Verb: "get", Resource: "secrets", Name: "central/source"}
	readNamespace = testkit.Request{Verb: "get", Resource: "namespaces", Name: "/team"}
)

func created(version string) testkit.Request {
	return testkit.Request{Verb: "create", Resource: "secrets", Name: "team/registry", Body: &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "team", Name: "registry", Labels: map[string]string{"sakeeper.io/pull-secret": "copy"},
			Annotations: map[string]string{"sakeeper.io/copied-from": "central/source", "sakeeper.io/copied-version": string(sourceUID) + "/" + version},
		},
		Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{".dockerconfigjson": []byte(config)},
	}}
}

func applied(version string) testkit.Request {
	return testkit.Request{Verb: "patch application/apply-patch+yaml", Resource: "secrets", Name: "team/registry", Body: map[string]any{
		"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
		"metadata": map[string]any{
			"namespace": "team", "name": "registry", "uid": string(testkit.SecretUID), "resourceVersion": testkit.ResourceVersion,
			"labels":      map[string]any{"sakeeper.io/pull-secret": "copy"},
			"annotations": map[string]any{"sakeeper.io/copied-from": "central/source", "sakeeper.io/copied-version": string(sourceUID) + "/" + version},
		},
		"data": map[string]any{".dockerconfigjson": base64.StdEncoding.EncodeToString([]byte(config))},
	}}
}

func deleted() testkit.Request {
	uid, version := testkit.SecretUID, testkit.ResourceVersion
	return testkit.Request{Verb: "delete", Resource: "secrets", Name: "team/registry", Body: &metav1.Preconditions{UID: &uid, ResourceVersion: &version}}
}

func immutable() error {
	return apierrors.NewInvalid(schema.GroupKind{Kind: "Secret"}, "registry", field.ErrorList{field.Forbidden(field.NewPath("data"), "field is immutable when `immutable` is set")})
}

func TestSync(t *testing.T) {
	team := testkit.Namespace("team")
	old := func(s *cache.PullSecret) { s.Type = corev1.SecretTypeDockercfg }
	cases := map[string]struct {
		inCached    []metav1.Object
		inLive      string // the resourceVersion of the source, if it is newer than the cache says
		inResponses map[string]error
		want        []testkit.Request
	}{
		"a missing copy is created":               {inCached: []metav1.Object{team, registry(), source()}, want: []testkit.Request{readSource, created("7")}},
		"from what the API server has":            {inCached: []metav1.Object{team, registry(), source()}, inLive: "8", want: []testkit.Request{readSource, created("8")}},
		"a copy that was changed is applied":      {inCached: []metav1.Object{team, registry(), source(), copied(damaged)}, want: []testkit.Request{readSource, applied("7")}},
		"one of another type is replaced":         {inCached: []metav1.Object{team, registry(), source(), copied(old)}, want: []testkit.Request{readSource, deleted(), created("7")}},
		"and one that is immutable":               {inCached: []metav1.Object{team, registry(), source(), copied(damaged)}, inResponses: map[string]error{"patch": immutable()}, want: []testkit.Request{readSource, applied("7"), deleted(), created("7")}},
		"what is right is not even read":          {inCached: []metav1.Object{team, registry(), source(), copied(nil)}},
		"one that nobody names is deleted":        {inCached: []metav1.Object{team, copied(nil)}, want: []testkit.Request{readNamespace, deleted()}},
		"not while a template cannot be read":     {inCached: []metav1.Object{team, copied(nil), invalid()}},
		"a copy of a missing source stays":        {inCached: []metav1.Object{team, registry(), copied(damaged)}},
		"a source of a type that is not a copy's": {inCached: []metav1.Object{team, registry()}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, tc.inCached...)
			f.responses = tc.inResponses
			if tc.inLive != "" {
				f.live.ResourceVersion = tc.inLive
			}
			requeueAfter, err := f.sync(testkit.Context(t), copyKey())
			if requeueAfter != 0 || err != nil {
				t.Errorf("requeued after %v, error %v", requeueAfter, err)
			}
			if diff := cmp.Diff(tc.want, testkit.Requests(f.client.Actions())); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
			if len(f.reader.reads) > 0 {
				t.Error("a source is kept")
			}
		})
	}
}

func TestNothingIsDeletedThatTheAPIServerHasANameFor(t *testing.T) {
	f := newFixture(t, testkit.Namespace("team"), copied(nil))
	f.templates.live = append(f.templates.live, registry()) // which the cache does not have yet
	if requeueAfter, err := f.sync(testkit.Context(t), copyKey()); requeueAfter != time.Second || err != nil {
		t.Errorf("requeued after %v, error %v", requeueAfter, err)
	}
	f.templates.listErr = testkit.NotFound() // as without the definition
	if _, err := f.sync(testkit.Context(t), copyKey()); err == nil {
		t.Error("no error")
	}
	if diff := cmp.Diff([]testkit.Request{readNamespace}, testkit.Requests(f.client.Actions())); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestResponses(t *testing.T) {
	quoting := testkit.Invalid("data", "no registry may have the password "+marked)
	cases := map[string]struct {
		in           *cache.PullSecret // the copy
		verb         string
		response     error
		requeueAfter time.Duration
		wantErr      string
		wantEvents   int
	}{
		"it changed":                     {in: copied(damaged), verb: "patch", response: testkit.Conflict(), requeueAfter: time.Second},
		"it is gone":                     {in: copied(damaged), verb: "patch", response: testkit.NotFound()},
		"another Secret has the name":    {verb: "create", response: testkit.AlreadyExists(), requeueAfter: time.Minute},
		"the namespace is being deleted": {verb: "create", response: testkit.NamespaceTerminating()},
		"a quota":                        {verb: "create", response: testkit.QuotaExceeded(), wantErr: "create secret team/registry: " + testkit.QuotaExceeded().Error(), wantEvents: 1},
		"an answer that quotes it":       {in: copied(damaged), verb: "patch", response: quoting, wantErr: "apply secret team/registry: Invalid (the message is left out, because it quotes the secret)", wantEvents: 1},
		"etcd is slow":                   {in: copied(damaged), verb: "patch", response: testkit.InternalError(), wantErr: "apply secret team/registry: " + testkit.InternalError().Error()},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, testkit.Namespace("team"), registry(), source())
			if tc.in != nil {
				f.cache(t, tc.in)
			}
			f.responses[tc.verb] = tc.response
			requeueAfter, err := f.sync(testkit.Context(t), copyKey())
			text := ""
			if err != nil {
				text = err.Error()
			}
			if requeueAfter != tc.requeueAfter || text != tc.wantErr {
				t.Errorf("requeued after %v, error %q", requeueAfter, text)
			}
			events := testkit.Events(f.recorder)
			if len(events) != tc.wantEvents || strings.Contains(strings.Join(events, ""), marked) {
				t.Errorf("events %v", events)
			}
			if problem := f.problem(copyKey()); (problem != "") != (tc.wantErr != "" || tc.response != nil && apierrors.IsAlreadyExists(tc.response)) {
				t.Errorf("problem %q", problem)
			}
		})
	}
}

func TestASourceThatWasReplacedIsReadAgain(t *testing.T) {
	f := newFixture(t, testkit.Namespace("team"), registry(), source())
	f.live.UID = testkit.OtherUID
	if requeueAfter, err := f.sync(testkit.Context(t), copyKey()); requeueAfter != time.Second || err != nil {
		t.Errorf("requeued after %v, error %v", requeueAfter, err)
	}
	if diff := cmp.Diff([]testkit.Request{readSource}, testkit.Requests(f.client.Actions())); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// TestAnotherSecretInTheWay: while it is there, the source is not read.
func TestAnotherSecretInTheWay(t *testing.T) {
	there := true
	f := newFixture(t, testkit.Namespace("team"), registry(), source())
	f.metadata.AddReactor("list", "secrets", func(action clienttesting.Action) (bool, runtime.Object, error) {
		selector := action.(clienttesting.ListAction).GetListRestrictions().Fields
		if selector.String() != "metadata.name=registry" || action.GetNamespace() != "team" {
			t.Errorf("listed %s in %s", selector, action.GetNamespace())
		}
		list := &metav1.List{}
		if there {
			list.Items = []runtime.RawExtension{{Object: &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "registry"}}}}
		}
		return true, list, nil
	})
	f.responses["create"] = testkit.AlreadyExists()
	for range 3 {
		if requeueAfter, err := f.sync(testkit.Context(t), copyKey()); requeueAfter != time.Minute || err != nil {
			t.Errorf("requeued after %v, error %v", requeueAfter, err)
		}
	}
	if diff := cmp.Diff([]testkit.Request{readSource, created("7")}, testkit.Requests(f.client.Actions())); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	there, f.responses["create"] = false, nil
	if requeueAfter, err := f.sync(testkit.Context(t), copyKey()); requeueAfter != 0 || err != nil || f.problem(copyKey()) != "" || len(f.client.Actions()) != 4 {
		t.Errorf("requeued after %v, error %v, problem %q, %d requests", requeueAfter, err, f.problem(copyKey()), len(f.client.Actions()))
	}
}

// The cache never shows the writes, as if another client undid each of them.
func TestWhatIsUndoneIsWrittenEverMoreSlowly(t *testing.T) {
	for name, cached := range map[string][]metav1.Object{"changed": {copied(damaged)}, "deleted": nil} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, append(cached, testkit.Namespace("team"), registry(), source())...)
			testkit.ExpectWriteBackoff(t, f.clock, func() int { return len(f.client.Actions()) }, func() time.Duration {
				requeueAfter, err := f.sync(testkit.Context(t), copyKey())
				if err != nil {
					t.Fatal(err)
				}
				return requeueAfter
			})
			if events := testkit.Events(f.recorder); len(events) != 1 || !strings.HasPrefix(events[0], "Warning LeftAlone ") {
				t.Errorf("events %v", events)
			}
			if requeueAfter, err := f.sync(testkit.Context(t), copyKey()); requeueAfter == 0 || err != nil || f.problem(copyKey()) == "" {
				t.Errorf("requeued after %v, %v", requeueAfter, err)
			}
		})
	}
}

func TestWritesShareOneRead(t *testing.T) {
	f := newFixture(t)
	var all, first sync.WaitGroup
	first.Add(3)
	for range 3 {
		all.Go(func() {
			err := f.reader.use(t.Context(), source(), func(*corev1.Secret) error {
				first.Done()
				first.Wait() // all of them write at the same time
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := len(f.client.Actions()); n != 1 || len(f.reader.reads) > 0 {
		t.Errorf("%d reads, of which %d are kept", n, len(f.reader.reads))
	}
}

func TestRedact(t *testing.T) {
	cases := map[string]struct {
		in   string
		want bool
	}{
		"the password":        {in: "password " + marked + " is bad", want: true},
		"a part of it":        {in: "it ends with " + marked[len(marked)-8:], want: true},
		"in another encoding": {in: "auth is super-secret-marked", want: true},
		"all of the Secret":   {in: base64.StdEncoding.EncodeToString([]byte(config)), want: true},
		"the registry":        {in: `secrets "registry.example.com" is forbidden: exceeded quota`},
		"the names of fields": {in: "auths and password are required"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			in := errors.New(tc.in)
			got := redact(in, secret("central/source", sourceUID, "7"))
			if errors.Is(got, in) == tc.want || tc.want && quotes(got.Error(), secret("central/source", sourceUID, "7")) {
				t.Errorf("got %v", got)
			}
		})
	}
	if err := redact(errors.New("plain text"), &corev1.Secret{Data: map[string][]byte{"k": []byte("plain text")}}); err.Error() == "plain text" {
		t.Error("a configuration that is no JSON is quoted")
	}
}

func TestNewRefusesAnIncompleteConfig(t *testing.T) {
	testkit.ExpectRequired(t, newFixture(t).cfg, New, "SourceNamespaces", "Workers", "Registerer")
}

// TestWhatIsQueued: what an event may change is synced, and nothing else.
func TestWhatIsQueued(t *testing.T) {
	blue := template("blue", 0, named("blue", "central", "blue"))
	blue.Spec.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "blue"}}
	former := copied(func(s *cache.PullSecret) { s.Name = "former" })
	other := testkit.Namespace("other", testkit.WithLabel("team", "blue"))
	cases := map[string]struct {
		in   func(*fixture)
		want map[string]bool
	}{
		"a source":             {in: func(f *fixture) { f.enqueueSource(source()) }, want: map[string]bool{"team/registry": true, "other/registry": true}},
		"a template":           {in: func(f *fixture) { f.enqueueTemplate(cache.NewTemplate(blue)) }, want: map[string]bool{"other/blue": true, "team/former": true}},
		"one that was there":   {in: func(f *fixture) { f.enqueueListedTemplate(cache.NewTemplate(registry())) }, want: map[string]bool{"team/registry": true, "other/registry": true}},
		"a namespace":          {in: func(f *fixture) { f.enqueueNamespace(other) }, want: map[string]bool{"other/blue": true, "other/registry": true}},
		"one that has a copy":  {in: func(f *fixture) { f.enqueueNamespace(testkit.Namespace("team")) }, want: map[string]bool{"team/former": true, "team/registry": true}},
		"a copy":               {in: func(f *fixture) { f.enqueueCopy(former) }, want: map[string]bool{"team/former": true}},
		"a source of no names": {in: func(f *fixture) { f.enqueueSource(metadataOf(secret("central/none", sourceUID, "7"))) }, want: map[string]bool{}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, testkit.Namespace("team"), other, registry(), blue, former, source(), metadataOf(secret("central/blue", sourceUID, "7")))
				stop := testkit.Start(testkit.Context(t), t, func(ctx context.Context) error { return f.queue.Run(ctx) })
				tc.in(f)
				time.Sleep(time.Second)
				synctest.Wait()
				stop()
				got := map[string]bool{}
				for _, r := range testkit.Requests(f.client.Actions()) {
					if r.Verb != "get" {
						got[r.Name] = true
					}
				}
				if diff := cmp.Diff(tc.want, got); diff != "" {
					t.Errorf("written (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// TestAllCachesAreWaitedFor: before they are filled, nothing is decided.
func TestAllCachesAreWaitedFor(t *testing.T) {
	f := newFixture(t)
	if n := len(f.cfg.Sources.Informers()) + len(f.cfg.Copies.Informers()) + 2; n != 6 || len(f.synced) != n {
		t.Errorf("%d of %d informers are waited for", len(f.synced), n)
	}
}
