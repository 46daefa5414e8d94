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

// universe is a model of the API server with one controller at a time.
type universe struct {
	fixture
	t      *testing.T
	random *rand.Rand
	story  []string
	calmed bool // no more faults
	// crashed: nothing that the process asks for reaches the API server.
	crashed bool
	// seenAccounts and seenSecrets are how much of the history each cache shows.
	seenAccounts, seenSecrets int
	// late are creates that are carried out without an answer, by deadline.
	late []lateCreate
	// created are the names of all Secrets that the controller made, and referred those
	// that an account referred to or may have, for all that the controller knows.
	created, referred map[string]bool
	births, crashes   int
}

type lateCreate struct {
	secret   *corev1.Secret
	deadline time.Time
}

func newUniverse(t *testing.T, seed uint64) *universe {
	utilrand.Seed(int64(seed))
	u := &universe{t: t, random: rand.New(rand.NewPCG(seed, seed)), created: map[string]bool{}, referred: map[string]bool{}}
	u.fixture = fixture{model: newModel()}
	u.start(testkit.Instant())
	u.birth()
	return u
}

func (u *universe) tell(format string, args ...any) {
	u.story = append(u.story, fmt.Sprintf("%s ", u.clock.Now().Format("04:05.000"))+fmt.Sprintf(format, args...))
}

// start starts a process, with caches of some moments in the past.
func (u *universe) start(now time.Time) {
	u.fixture = newFixture(u.t, u.model)
	u.clock.SetTime(now)
	u.started, u.crashed = now, false
	u.client.PrependReactor("*", "*", u.request)
	u.metadata.PrependReactor("*", "*", u.request)
	u.seenAccounts, u.seenSecrets = u.random.IntN(len(u.model.history)+1), u.random.IntN(len(u.model.history)+1)
	for _, c := range u.model.history[:u.seenAccounts] {
		u.show(c, false)
	}
	for _, c := range u.model.history[:u.seenSecrets] {
		u.show(c, true)
	}
}

// show makes one of the caches show c, and tells the controller.
func (u *universe) show(c change, secrets bool) {
	switch {
	case secrets && c.secret != nil:
		reduced := cache.NewTokenSecret(c.secret.DeepCopy(), nil)
		must(u.t, u.cfg.Secrets.GetStore().Add(reduced))
		u.secretEvents().OnAdd(reduced, false)
	case secrets && c.formerSecret != nil:
		reduced := cache.NewTokenSecret(c.formerSecret.DeepCopy(), nil)
		must(u.t, u.cfg.Secrets.GetStore().Delete(reduced))
		u.secretEvents().OnDelete(toolscache.DeletedObject[*cache.TokenSecret]{OptionalObj: reduced})
	case !secrets && c.account != nil:
		must(u.t, u.cfg.ServiceAccounts.GetStore().Add(c.account))
		u.accountEvents().OnAdd(c.account, false)
	case !secrets && c.formerAccount != nil:
		must(u.t, u.cfg.ServiceAccounts.GetStore().Delete(c.formerAccount))
		u.accountEvents().OnDelete(toolscache.DeletedObject[*corev1.ServiceAccount]{OptionalObj: c.formerAccount})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// request is what becomes of a request before the model sees it.
func (u *universe) request(action clienttesting.Action) (bool, runtime.Object, error) {
	what := action.GetVerb() + " " + action.GetResource().Resource
	if u.crashed {
		return true, nil, errCrashed
	}
	fate := u.random.IntN(20)
	if u.calmed || fate > 8 {
		return u.carryOut(what, action)
	}
	create, isCreate := action.(clienttesting.CreateActionImpl)
	if patch, ok := action.(clienttesting.PatchActionImpl); ok && fate >= 2 && fate <= 4 && len(patch.PatchOptions.DryRun) == 0 {
		var account corev1.ServiceAccount
		must(u.t, json.Unmarshal(patch.Patch, &account))
		u.noteReferred(&account)
	}
	switch fate {
	case 0:
		u.crash("before " + what)
		return true, nil, errCrashed
	case 1:
		_, _, _ = u.carryOut(what, action)
		u.crash("after " + what)
		return true, nil, errCrashed
	case 2, 3:
		if isCreate {
			u.late = append(u.late, lateCreate{create.Object.(*corev1.Secret), u.clock.Now().Add(10*time.Second - 1)})
			u.tell("%s %s, which comes late", what, create.Object.(*corev1.Secret).Name)
		}
		if fate == 2 {
			u.crash("during " + what)
		}
		return true, nil, timeout()
	case 4:
		_, _, _ = u.carryOut(what+", no answer", action)
		return true, nil, testkit.InternalError()
	case 5:
		u.tell("%s: forbidden", what)
		return true, nil, testkit.QuotaExceeded()
	case 6:
		u.tell("%s: conflict", what)
		return true, nil, testkit.Conflict()
	default:
		u.tell("%s: too many requests", what)
		return true, nil, apierrors.NewTooManyRequests("later", 1)
	}
}

func (u *universe) crash(when string) {
	u.tell("crash %s", when)
	u.crashed = true
	u.crashes++
}

// carryOut lets the model answer, and watches what is never to be done.
func (u *universe) carryOut(what string, action clienttesting.Action) (bool, runtime.Object, error) {
	former := u.model.secrets[action.GetNamespace()+"/"+nameOf(action)]
	unseen := u.unseenTokens()
	obj, err := u.model.carryOut(action)
	switch a := action.(type) {
	case clienttesting.CreateActionImpl:
		name := a.Object.(*corev1.Secret).Name
		u.tell("%s %s: %v", what, name, err)
		if err == nil {
			u.noteCreated(name)
		}
	case clienttesting.DeleteActionImpl:
		u.tell("%s %s: %v", what, a.Name, err)
		account := u.model.accounts["team/robot"]
		if err == nil && u.referred[a.Name] && account != nil && former.Annotations[corev1.ServiceAccountUIDKey] == string(account.UID) {
			u.t.Errorf("%s was deleted, to which the account referred", a.Name)
		}
	case clienttesting.PatchActionImpl:
		u.tell("%s (rehearsal %t): %s: %v", what, len(a.PatchOptions.DryRun) > 0, a.Patch, err)
		if err == nil && len(unseen) > 0 {
			u.t.Errorf("another reference was written although the account refers to %v", unseen)
		}
		if account := u.model.accounts["team/robot"]; account != nil {
			u.noteReferred(account)
		}
	}
	if err != nil {
		return true, nil, err
	}
	return true, obj, nil
}

// unseenTokens are live tokens that the account refers to and that the cache does not
// have.
func (u *universe) unseenTokens() []string {
	account := u.model.accounts["team/robot"]
	if account == nil {
		return nil
	}
	var names []string
	for _, name := range u.missing(account) {
		if secret := u.model.secrets["team/"+name]; secret != nil && secret.Annotations[corev1.ServiceAccountUIDKey] == string(account.UID) {
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

func (u *universe) noteCreated(name string) {
	if u.created[name] {
		u.t.Errorf("%s was made twice", name)
	}
	u.created[name] = true
}

func (u *universe) noteReferred(account *corev1.ServiceAccount) {
	for _, ref := range account.Secrets {
		u.referred[ref.Name] = true
	}
}
