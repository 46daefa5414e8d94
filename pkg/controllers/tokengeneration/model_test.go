package tokengeneration

import (
	"encoding/json"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// model is as much of an API server as the controller sees: token Secrets and
// ServiceAccounts with UIDs and versions, preconditions, and a history that watches
// follow. It is not safe for concurrent use.
type model struct {
	revision int
	secrets  map[string]*corev1.Secret
	accounts map[string]*corev1.ServiceAccount
	history  []change
	// answer, where set, replaces the answer to a request, which is carried out all
	// the same where carried is true.
	answer func(verb, resource string) (err error, carried bool)
}

// change is one step of the history. Nil is what was not there, before or after.
type change struct {
	secret, formerSecret   *corev1.Secret
	account, formerAccount *corev1.ServiceAccount
}

func newModel(objects ...metav1.Object) *model {
	m := &model{revision: 1000, secrets: map[string]*corev1.Secret{}, accounts: map[string]*corev1.ServiceAccount{}}
	for _, obj := range objects {
		key := obj.GetNamespace() + "/" + obj.GetName()
		switch obj := obj.(type) {
		case *corev1.Secret:
			m.secrets[key] = obj
		case *corev1.ServiceAccount:
			m.accounts[key] = obj
		}
	}
	return m
}

func (m *model) react(action clienttesting.Action) (bool, runtime.Object, error) {
	var err error
	carried := true
	if m.answer != nil {
		err, carried = m.answer(action.GetVerb(), action.GetResource().Resource)
	}
	if !carried {
		return true, nil, err
	}
	obj, answer := m.carryOut(action)
	if err == nil {
		err = answer
	}
	if err != nil {
		return true, nil, err
	}
	return true, obj, nil
}

func (m *model) carryOut(action clienttesting.Action) (runtime.Object, error) {
	switch a := action.(type) {
	case clienttesting.CreateActionImpl:
		return m.create(a.Object.(*corev1.Secret).DeepCopy())
	case clienttesting.PatchActionImpl:
		return m.refer(a)
	case clienttesting.DeleteActionImpl:
		return nil, m.delete(a.Namespace+"/"+a.Name, *a.DeleteOptions.Preconditions.UID)
	case clienttesting.ListActionImpl:
		return m.list(a.Namespace, a.ListRestrictions.Fields), nil
	default:
		panic("unexpected " + action.GetVerb())
	}
}

func (m *model) next() string {
	m.revision++
	return strconv.Itoa(m.revision)
}

func (m *model) create(secret *corev1.Secret) (*corev1.Secret, error) {
	key := secret.Namespace + "/" + secret.Name
	if m.secrets[key] != nil {
		return nil, testkit.AlreadyExists()
	}
	secret.ResourceVersion = m.next()
	secret.UID = types.UID("made-" + secret.ResourceVersion)
	m.setSecret(key, secret)
	return secret.DeepCopy(), nil
}

func (m *model) refer(a clienttesting.PatchActionImpl) (*corev1.ServiceAccount, error) {
	var patch corev1.ServiceAccount
	if err := json.Unmarshal(a.Patch, &patch); err != nil {
		panic(err)
	}
	account := m.accounts[a.Namespace+"/"+a.Name]
	switch {
	case account == nil:
		return nil, testkit.NotFound()
	case account.UID != patch.UID, account.ResourceVersion != patch.ResourceVersion:
		return nil, testkit.Conflict()
	}
	account = account.DeepCopy()
	account.Secrets = patch.Secrets
	if len(a.PatchOptions.DryRun) == 0 {
		m.setAccount(account)
	}
	return account, nil
}

func (m *model) delete(key string, uid types.UID) error {
	switch secret := m.secrets[key]; {
	case secret == nil:
		return testkit.NotFound()
	case secret.UID != uid:
		return testkit.Conflict()
	}
	m.setSecret(key, nil)
	return nil
}

// list is the metadata of the Secrets of namespace that selector selects.
func (m *model) list(namespace string, selector fields.Selector) *metav1.List {
	list := &metav1.List{}
	for _, secret := range m.secrets {
		if secret.Namespace == namespace && selector.Matches(fields.Set{"type": string(secret.Type), "metadata.name": secret.Name}) {
			list.Items = append(list.Items, runtime.RawExtension{Object: &metav1.PartialObjectMetadata{ObjectMeta: *secret.ObjectMeta.DeepCopy()}})
		}
	}
	return list
}

// setSecret puts secret, or nil, in the place of what is there.
func (m *model) setSecret(key string, secret *corev1.Secret) {
	m.history = append(m.history, change{secret: secret, formerSecret: m.secrets[key]})
	m.secrets[key] = secret
	if secret == nil {
		delete(m.secrets, key)
	}
}

// setAccount puts account in the place of what is there, at a new version.
func (m *model) setAccount(account *corev1.ServiceAccount) {
	key := account.Namespace + "/" + account.Name
	account.ResourceVersion = m.next()
	m.history = append(m.history, change{account: account, formerAccount: m.accounts[key]})
	m.accounts[key] = account
}

func (m *model) removeAccount(key string) {
	m.history = append(m.history, change{formerAccount: m.accounts[key]})
	delete(m.accounts, key)
}

// dropReferences does what the token controller does for a Secret that went.
func (m *model) dropReferences(key string) {
	for _, account := range m.accounts {
		gone := func(ref corev1.ObjectReference) bool {
			return account.Namespace+"/"+ref.Name == key && m.secrets[key] == nil
		}
		if slices.ContainsFunc(account.Secrets, gone) {
			account = account.DeepCopy()
			account.Secrets = slices.DeleteFunc(account.Secrets, gone)
			m.setAccount(account)
		}
	}
}
