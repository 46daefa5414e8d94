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
	// seenAccounts and seenSecrets are how much of the history each cache shows.
	seenAccounts, seenSecrets int
	// delayed are creates that fail with a timeout and are carried out by their deadlines.
	delayed []delayedCreate
	// created are the names of all Secrets that the controller created. referred are those
	// that an account referred to, or may have as far as the controller knows.
	created, referred        map[string]bool
	accountsCreated, crashes int
}

type delayedCreate struct {
	secret   *corev1.Secret
	deadline time.Time
}

func newSimulation(t *testing.T, seed uint64) *simulation {
	utilrand.Seed(int64(seed))
	s := &simulation{t: t, random: rand.New(rand.NewPCG(seed, seed)), created: map[string]bool{}, referred: map[string]bool{}}
	s.fixture = fixture{server: newFakeAPIServer()}
	s.start(testkit.Instant())
	s.createAccount()
	return s
}

func (s *simulation) logf(format string, args ...any) {
	s.log = append(s.log, fmt.Sprintf("%s ", s.clock.Now().Format("04:05.000"))+fmt.Sprintf(format, args...))
}

// start starts a process whose caches lag by random amounts.
func (s *simulation) start(now time.Time) {
	s.fixture = newFixture(s.t, s.server)
	s.clock.SetTime(now)
	s.started, s.crashed = now, false
	s.client.PrependReactor("*", "*", s.request)
	s.metadata.PrependReactor("*", "*", s.request)
	s.seenAccounts, s.seenSecrets = s.random.IntN(len(s.server.history)+1), s.random.IntN(len(s.server.history)+1)
	for _, c := range s.server.history[:s.seenAccounts] {
		s.show(c, false)
	}
	for _, c := range s.server.history[:s.seenSecrets] {
		s.show(c, true)
	}
}

// show applies c to one of the caches, and delivers its event.
func (s *simulation) show(c change, secrets bool) {
	switch {
	case secrets && c.secret != nil:
		reduced := cache.NewTokenSecret(c.secret.DeepCopy(), nil)
		must(s.t, s.cfg.Secrets.GetStore().Add(reduced))
		s.secretEvents().OnAdd(reduced, false)
	case secrets && c.formerSecret != nil:
		reduced := cache.NewTokenSecret(c.formerSecret.DeepCopy(), nil)
		must(s.t, s.cfg.Secrets.GetStore().Delete(reduced))
		s.secretEvents().OnDelete(toolscache.DeletedObject[*cache.TokenSecret]{OptionalObj: reduced})
	case !secrets && c.account != nil:
		must(s.t, s.cfg.ServiceAccounts.GetStore().Add(c.account))
		s.accountEvents().OnAdd(c.account, false)
	case !secrets && c.formerAccount != nil:
		must(s.t, s.cfg.ServiceAccounts.GetStore().Delete(c.formerAccount))
		s.accountEvents().OnDelete(toolscache.DeletedObject[*corev1.ServiceAccount]{OptionalObj: c.formerAccount})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// request carries out a request, or lets it fail at random.
func (s *simulation) request(action clienttesting.Action) (bool, runtime.Object, error) {
	what := action.GetVerb() + " " + action.GetResource().Resource
	if s.crashed {
		return true, nil, errCrashed
	}
	fault := s.random.IntN(20)
	if s.noFaults || fault > 8 {
		return s.carryOut(what, action)
	}
	create, isCreate := action.(clienttesting.CreateActionImpl)
	if patch, ok := action.(clienttesting.PatchActionImpl); ok && fault >= 2 && fault <= 4 && len(patch.PatchOptions.DryRun) == 0 {
		var account corev1.ServiceAccount
		must(s.t, json.Unmarshal(patch.Patch, &account))
		s.noteReferred(&account)
	}
	switch fault {
	case 0:
		s.crash("before " + what)
		return true, nil, errCrashed
	case 1:
		_, _, _ = s.carryOut(what, action)
		s.crash("after " + what)
		return true, nil, errCrashed
	case 2, 3:
		if isCreate {
			s.delayed = append(s.delayed, delayedCreate{create.Object.(*corev1.Secret), s.clock.Now().Add(10*time.Second - 1)})
			s.logf("%s %s, which is delayed", what, create.Object.(*corev1.Secret).Name)
		}
		if fault == 2 {
			s.crash("during " + what)
		}
		return true, nil, timeout()
	case 4:
		_, _, _ = s.carryOut(what+", no answer", action)
		return true, nil, testkit.InternalError()
	case 5:
		s.logf("%s: forbidden", what)
		return true, nil, testkit.QuotaExceeded()
	case 6:
		s.logf("%s: conflict", what)
		return true, nil, testkit.Conflict()
	default:
		s.logf("%s: too many requests", what)
		return true, nil, apierrors.NewTooManyRequests("later", 1)
	}
}

func (s *simulation) crash(when string) {
	s.logf("crash %s", when)
	s.crashed = true
	s.crashes++
}

// carryOut passes a request to the fake API server, and checks what must never happen.
func (s *simulation) carryOut(what string, action clienttesting.Action) (bool, runtime.Object, error) {
	former := s.server.secrets[action.GetNamespace()+"/"+nameOf(action)]
	unseen := s.unseenTokens()
	obj, err := s.server.carryOut(action)
	switch a := action.(type) {
	case clienttesting.CreateActionImpl:
		name := a.Object.(*corev1.Secret).Name
		s.logf("%s %s: %v", what, name, err)
		if err == nil {
			s.noteCreated(name)
		}
	case clienttesting.DeleteActionImpl:
		s.logf("%s %s: %v", what, a.Name, err)
		account := s.server.accounts["team/robot"]
		if err == nil && s.referred[a.Name] && account != nil && former.Annotations[corev1.ServiceAccountUIDKey] == string(account.UID) {
			s.t.Errorf("%s was deleted, to which the account referred", a.Name)
		}
	case clienttesting.PatchActionImpl:
		s.logf("%s (dry run %t): %s: %v", what, len(a.PatchOptions.DryRun) > 0, a.Patch, err)
		if err == nil && len(unseen) > 0 {
			s.t.Errorf("another reference was written although the account refers to %v", unseen)
		}
		if account := s.server.accounts["team/robot"]; account != nil {
			s.noteReferred(account)
		}
	}
	if err != nil {
		return true, nil, err
	}
	return true, obj, nil
}

// unseenTokens returns the account's referenced tokens that exist and that the cache does
// not have.
func (s *simulation) unseenTokens() []string {
	account := s.server.accounts["team/robot"]
	if account == nil {
		return nil
	}
	var names []string
	for _, name := range s.missing(account) {
		if secret := s.server.secrets["team/"+name]; secret != nil && secret.Annotations[corev1.ServiceAccountUIDKey] == string(account.UID) {
			names = append(names, name)
		}
	}
	return names
}

func nameOf(action clienttesting.Action) string {
	if a, ok := action.(clienttesting.DeleteActionImpl); ok {
		return a.Name
	}
	return ""
}

func (s *simulation) noteCreated(name string) {
	if s.created[name] {
		s.t.Errorf("%s was created twice", name)
	}
	s.created[name] = true
}

func (s *simulation) noteReferred(account *corev1.ServiceAccount) {
	for _, ref := range account.Secrets {
		s.referred[ref.Name] = true
	}
}
