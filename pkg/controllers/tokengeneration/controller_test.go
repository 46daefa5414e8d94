package tokengeneration

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/signingkey"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestNewChecksItsConfig(t *testing.T) {
	cases := map[string]func(*Config){
		"no mode":             func(cfg *Config) { cfg.Mode = "" },
		"the mode none":       func(cfg *Config) { cfg.Mode = ModeNone },
		"an unknown mode":     func(cfg *Config) { cfg.Mode = "some" },
		"no client":           func(cfg *Config) { cfg.Client = nil },
		"no metadata client":  func(cfg *Config) { cfg.Metadata = nil },
		"no namespaces":       func(cfg *Config) { cfg.Namespaces = nil },
		"no secrets":          func(cfg *Config) { cfg.Secrets = nil },
		"no service accounts": func(cfg *Config) { cfg.ServiceAccounts = nil },
		"no tokens":           func(cfg *Config) { cfg.Tokens = nil },
		"no CA":               func(cfg *Config) { cfg.CA = nil },
		"no recorder":         func(cfg *Config) { cfg.Recorder = nil },
		"no clock":            func(cfg *Config) { cfg.Clock = nil },
	}
	for name, without := range cases {
		t.Run(name, func(t *testing.T) {
			cfg := newConfig(t, &fake.Clientset{}, func(cfg *Config) {
				cfg.Metadata, cfg.Tokens = &metadatafake.FakeMetadataClient{}, &tokens{}
				cfg.Recorder, cfg.Clock = record.NewFakeRecorder(1), clock.RealClock{}
			})
			without(&cfg)
			if _, err := New(cfg); err == nil || !strings.HasPrefix(err.Error(), Name+": ") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// expectSync syncs team/robot, and compares the delay until the next sync and the writes.
func (f fixture) expectSync(t *testing.T, what string, wantAgain time.Duration, want ...testkit.Request) {
	t.Helper()
	again, err := f.sync(f.context(t), robotKey())
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if again != wantAgain {
		t.Errorf("%s: again after %v, want %v", what, again, wantAgain)
	}
	if diff := cmp.Diff(want, f.writes()); diff != "" {
		t.Errorf("%s: writes (-want +got):\n%s", what, diff)
	}
}

func TestAccountsOlderThanTheProcessWaitForEarlierRequests(t *testing.T) {
	f := newFixture(t, newFakeAPIServer(robot()))
	f.cache(t, robot())
	f.plan(func(*plan) {})
	f.started = f.clock.Now()
	f.expectSync(t, "at the start", 10*time.Second)
	f.pass(9 * time.Second)
	f.expectSync(t, "later", time.Second)
	f.pass(time.Second)
	f.expectSync(t, "when earlier requests are over", 0, creates(planned), patches(planned))
}

func TestANamespaceIsListedUntilEarlierRequestsAreOver(t *testing.T) {
	m := newFakeAPIServer()
	f := newFixture(t, m)
	f.started = f.clock.Now().Add(-time.Second)
	generate := func(account string) {
		t.Helper()
		obj := testkit.ServiceAccount("team/" + account)
		m.accounts["team/"+account] = obj
		f.cache(t, obj)
		if again, err := f.sync(f.context(t), toolscache.ObjectName{Namespace: "team", Name: account}); again != 0 || err != nil {
			t.Fatal(again, err)
		}
		for _, secret := range m.secrets {
			f.cache(t, secret)
		}
	}
	expect := func(what string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, f.lists()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	generate("a")
	expect("the first", listNamespace)
	generate("b")
	expect("the second, right after the start", listNamespace)
	f.pass(9 * time.Second)
	generate("c")
	expect("the third", listNamespace)
	generate("d")
	expect("the fourth")
}

func TestLargeClustersAreRateLimited(t *testing.T) {
	m := newFakeAPIServer()
	f := newFixture(t, m)
	waiting := map[time.Duration]int{}
	for i := range burst + 200 {
		account := testkit.ServiceAccount(fmt.Sprintf("team/a%d", i))
		m.accounts["team/"+account.Name] = account
		f.cache(t, account)
		again, err := f.sync(f.context(t), toolscache.MetaObjectToName(account))
		if err != nil && !errors.Is(err, workqueue.ErrRequeueLater) {
			t.Fatal(err)
		}
		for _, secret := range m.secrets {
			if secret.Annotations[corev1.ServiceAccountNameKey] == account.Name {
				f.cache(t, secret)
			}
		}
		waiting[again]++
	}
	if waiting[0] != burst || waiting[10*time.Millisecond] != 1 || waiting[2*time.Second] != 1 {
		t.Errorf("%d were handled, %d wait for 10 ms, %d for 2 s", waiting[0], waiting[10*time.Millisecond], waiting[2*time.Second])
	}
	if len(m.secrets) != burst {
		t.Errorf("there are %d secrets", len(m.secrets))
	}
}

func TestSecretsThatAreDeletedAgainAndAgainAreCreatedEverMoreSlowly(t *testing.T) {
	m := newFakeAPIServer(robot())
	f := newFixture(t, m)
	references := 0
	testkit.ExpectWriteBackoff(t, f.clock, func() int { return references }, func() time.Duration {
		t.Helper()
		f.cache(t, m.accounts["team/robot"])
		again, err := f.sync(f.context(t), robotKey())
		if err != nil && !errors.Is(err, workqueue.ErrRequeueLater) {
			t.Fatal(err)
		}
		f.plans.delete(robotKey())
		for key := range m.secrets {
			m.setSecret(key, nil)
			m.dropReferences(key)
		}
		for _, r := range f.writes() {
			if r.Verb == "patch" {
				references++
			}
		}
		return again
	})
	events := testkit.Events(f.recorder)
	if len(events) != 1 || !strings.Contains(events[0], "LeftAlone") || !strings.Contains(events[0], "kind=ServiceAccount,apiVersion=v1") {
		t.Errorf("got %q", events)
	}
}

func TestAWaitingTokenKeepsItsName(t *testing.T) {
	f := newFixture(t, newFakeAPIServer(robot()))
	f.cache(t, robot())
	f.tokens.err = signingkey.ErrWaiting
	if _, err := f.sync(f.context(t), robotKey()); !errors.Is(err, workqueue.ErrRequeueLater) {
		t.Errorf("waiting: %v", err)
	}
	name := f.plans.get(robotKey()).secretName
	f.tokens.err = nil
	f.expectSync(t, "woken", 0, creates(name), patches(name))
}

// TestACreateWithoutAnAnswer is the one case in which a name may be in use unknown to the
// controller: it looks the name up until the create must be over, and never uses it again.
func TestACreateWithoutAnAnswer(t *testing.T) {
	m := newFakeAPIServer(robot())
	f := newFixture(t, m)
	f.cache(t, robot())
	f.plan(func(*plan) {})
	m.respond = responses{"create secrets": timeout()}.to
	if _, err := f.sync(f.context(t), robotKey()); err == nil {
		t.Fatal("no error")
	}
	m.respond = nil
	f.writes()
	for range 10 {
		f.expectSync(t, "it may still be carried out", time.Second)
		f.pass(time.Second)
	}
	f.expectSync(t, "it was not", 0)
	if again, err := f.sync(f.context(t), robotKey()); again != 0 || err != nil {
		t.Fatal(again, err)
	}
	name := f.plans.get(robotKey()).secretName
	if name == planned {
		t.Error("the name was used again")
	}
	if diff := cmp.Diff([]testkit.Request{creates(name), patches(name)}, f.writes()); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
}

func TestASecretThatIsDeletedBeforeItsReference(t *testing.T) {
	m := newFakeAPIServer(robot())
	f := newFixture(t, m)
	f.cache(t, robot())
	f.plan(func(*plan) {})
	m.respond = func(verb, _ string) (error, bool) { // a user deletes it at once, and the event comes before the response
		if verb == "create" {
			f.plans.forgetSecret(robotKey(), planned)
		}
		return nil, true
	}
	f.expectSync(t, "created, and deleted", time.Second, creates(planned))
}
