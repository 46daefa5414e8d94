package tokengeneration

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
	clienttesting "k8s.io/client-go/testing"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/fakeapi"
)

var errCrashed = errors.New("the process is gone")

// simulation is a fake API server with one controller process at a time and random faults.
type simulation struct {
	fixture
	t        *testing.T
	random   *rand.Rand
	log      []string // for failed tests
	noFaults bool
	// crashed: no request of the process reaches the API server.
	crashed bool
	// syncing: changes are those of the process.
	syncing bool
	// history has all changes. seenAccounts and seenSecrets are how much of it each cache shows.
	history                   []change
	seenAccounts, seenSecrets int
	// delayed are creates that fail with a timeout and are carried out by their deadlines.
	delayed []delayedCreate
	// created are the names of all generated Secrets. referred are those that an account referred
	// to, or may have as far as the controller knows.
	created, referred        map[string]bool
	accountsCreated, crashes int
}

// change is a change of an object, which is nil if it did not exist before, or does not after it.
type change struct{ before, after runtime.Object }

type delayedCreate struct {
	secret   *corev1.Secret
	deadline time.Time
}

func newSimulation(t *testing.T, seed uint64) *simulation {
	utilrand.Seed(int64(seed))
	s := &simulation{t: t, random: rand.New(rand.NewPCG(seed, seed)), created: map[string]bool{}, referred: map[string]bool{}}
	server := fakeapi.New()
	server.OnChange(s.changed)
	server.Inject(s.fault)
	s.start(server, testkit.Instant())
	s.createAccount()
	return s
}

func (s *simulation) logf(format string, args ...any) {
	s.log = append(s.log, s.clock.Now().Format("04:05.000 ")+fmt.Sprintf(format, args...))
}

// start starts a process whose caches lag by random amounts.
func (s *simulation) start(server *fakeapi.Server, now time.Time) {
	s.fixture = newFixture(s.t, server)
	s.clock.SetTime(now)
	s.started, s.crashed = now, false
	s.seenAccounts, s.seenSecrets = 0, 0
	s.watch(&s.seenAccounts, false, s.random.IntN(len(s.history)+1))
	s.watch(&s.seenSecrets, true, s.random.IntN(len(s.history)+1))
}

// watch delivers up to n changes of the history to a cache.
func (s *simulation) watch(seen *int, secrets bool, n int) {
	for ; n > 0 && *seen < len(s.history) && !s.crashed; n-- {
		s.show(s.history[*seen], secrets)
		*seen++
	}
}

// show applies c to one of the caches, and delivers its event.
func (s *simulation) show(c change, secrets bool) {
	switch before, after := c.before, c.after; {
	case secrets && is[*corev1.Secret](after):
		reduced := cache.NewTokenSecret(after.DeepCopyObject().(*corev1.Secret), nil)
		must(s.t, s.cfg.Secrets.GetStore().Add(reduced))
		s.secretEvents().OnAdd(reduced, false)
	case secrets && is[*corev1.Secret](before):
		reduced := cache.NewTokenSecret(before.DeepCopyObject().(*corev1.Secret), nil)
		must(s.t, s.cfg.Secrets.GetStore().Delete(reduced))
		s.secretEvents().OnDelete(toolscache.DeletedObject[*cache.TokenSecret]{OptionalObj: reduced})
	case !secrets && is[*corev1.ServiceAccount](after):
		must(s.t, s.cfg.ServiceAccounts.GetStore().Add(after))
		s.accountEvents().OnAdd(after.(*corev1.ServiceAccount), false)
	case !secrets && is[*corev1.ServiceAccount](before):
		must(s.t, s.cfg.ServiceAccounts.GetStore().Delete(before))
		s.accountEvents().OnDelete(toolscache.DeletedObject[*corev1.ServiceAccount]{OptionalObj: before.(*corev1.ServiceAccount)})
	}
}

func is[T runtime.Object](obj runtime.Object) bool {
	_, ok := obj.(T)
	return ok
}

// fault lets a request fail at random.
func (s *simulation) fault(action clienttesting.Action) *fakeapi.Fault {
	what := action.GetVerb() + " " + action.GetResource().Resource
	if s.crashed {
		return &fakeapi.Fault{Err: errCrashed}
	}
	fault := s.random.IntN(20)
	if s.noFaults || fault > 8 {
		s.logf("%s", what)
		return nil
	}
	s.logf("%s: fault %d", what, fault)
	if patch, ok := action.(clienttesting.PatchActionImpl); ok && fault >= 2 && fault <= 4 && len(patch.PatchOptions.DryRun) == 0 {
		var account corev1.ServiceAccount
		must(s.t, json.Unmarshal(patch.Patch, &account))
		s.noteReferred(&account)
	}
	switch fault {
	case 0, 1:
		s.crash()
		return &fakeapi.Fault{Err: errCrashed, CarriedOut: fault == 1}
	case 2, 3:
		if create, ok := action.(clienttesting.CreateActionImpl); ok {
			s.delayed = append(s.delayed, delayedCreate{create.Object.(*corev1.Secret), s.clock.Now().Add(10*time.Second - 1)})
		}
		if fault == 2 {
			s.crash()
		}
		return &fakeapi.Fault{Err: timeout()}
	case 4:
		return &fakeapi.Fault{Err: testkit.InternalError(), CarriedOut: true}
	case 5:
		return &fakeapi.Fault{Err: testkit.QuotaExceeded()}
	case 6:
		return &fakeapi.Fault{Err: testkit.Conflict()}
	default:
		return &fakeapi.Fault{Err: apierrors.NewTooManyRequests("later", 1)}
	}
}

func (s *simulation) crash() {
	s.crashed = true
	s.crashes++
}

// changed adds a change to the history, and checks what must never happen.
func (s *simulation) changed(before, after runtime.Object) {
	s.history = append(s.history, change{before, after})
	switch changed := after.(type) {
	case *corev1.Secret:
		s.logf("secret %s is written", changed.Name)
		if before == nil && cache.IsGeneratedName("robot", changed.Name) {
			if s.created[changed.Name] {
				s.t.Errorf("%s was created twice", changed.Name)
			}
			s.created[changed.Name] = true
		}
	case *corev1.ServiceAccount:
		s.logf("the account refers to %v", changed.Secrets)
		s.noteReferred(changed)
		if account, ok := before.(*corev1.ServiceAccount); ok && s.syncing {
			s.expectNoUnseenTokens(account)
		}
	case nil:
		secret, ok := before.(*corev1.Secret)
		if account := s.account(); ok && s.syncing && s.referred[secret.Name] && account != nil && secret.Annotations[corev1.ServiceAccountUIDKey] == string(account.UID) {
			s.t.Errorf("%s was deleted, to which the account referred", secret.Name)
		}
	}
}

// expectNoUnseenTokens fails if the account has referred to a token that exists and that the cache
// does not have: another reference was written nevertheless.
func (s *simulation) expectNoUnseenTokens(account *corev1.ServiceAccount) {
	for _, name := range s.missing(account) {
		if secret := s.secret(name); secret != nil && secret.Annotations[corev1.ServiceAccountUIDKey] == string(account.UID) {
			s.t.Errorf("another reference was written although the account refers to %s", name)
		}
	}
}

func (s *simulation) noteReferred(account *corev1.ServiceAccount) {
	for _, ref := range account.Secrets {
		s.referred[ref.Name] = true
	}
}

// account returns the account of the API server, or nil.
func (s *simulation) account() *corev1.ServiceAccount {
	return fakeapi.Get[corev1.ServiceAccount](s.server, "team/robot")
}

// secret returns a Secret of the API server, or nil.
func (s *simulation) secret(name string) *corev1.Secret {
	return fakeapi.Get[corev1.Secret](s.server, "team/"+name)
}

func (s *simulation) secrets() []*corev1.Secret {
	return fakeapi.List[corev1.Secret](s.server, "team")
}
