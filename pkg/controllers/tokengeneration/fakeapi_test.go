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

// fakeAPIServer has what the controller uses of an API server: token Secrets and
// ServiceAccounts with UIDs and versions, preconditions, and a history that watches
// follow. It is not safe for concurrent use.
type fakeAPIServer struct {
	revision int
	secrets  map[string]*corev1.Secret
	accounts map[string]*corev1.ServiceAccount
	history  []change
	// respond, if set, replaces the response to a request by a non-nil err. The request is
	// carried out all the same if apply is true.
	respond func(verb, resource string) (err error, apply bool)
}

// change is one step of the history. An object that did not exist before or after is nil.
type change struct {
	secret, formerSecret   *corev1.Secret
	account, formerAccount *corev1.ServiceAccount
}

func newFakeAPIServer(objects ...metav1.Object) *fakeAPIServer {
	m := &fakeAPIServer{revision: 1000, secrets: map[string]*corev1.Secret{}, accounts: map[string]*corev1.ServiceAccount{}}
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

func (m *fakeAPIServer) react(action clienttesting.Action) (bool, runtime.Object, error) {
	var err error
	apply := true
	if m.respond != nil {
		err, apply = m.respond(action.GetVerb(), action.GetResource().Resource)
	}
	if !apply {
		return true, nil, err
	}
	obj, errApply := m.carryOut(action)
	if err == nil {
		err = errApply
	}
	if err != nil {
		return true, nil, err
	}
	return true, obj, nil
}

func (m *fakeAPIServer) carryOut(action clienttesting.Action) (runtime.Object, error) {
	switch a := action.(type) {
	case clienttesting.CreateActionImpl:
		return m.create(a.Object.(*corev1.Secret).DeepCopy())
	case clienttesting.PatchActionImpl:
		return m.patch(a)
	case clienttesting.DeleteActionImpl:
		return nil, m.delete(a.Namespace+"/"+a.Name, *a.DeleteOptions.Preconditions.UID)
	case clienttesting.ListActionImpl:
		return m.list(a.Namespace, a.ListRestrictions.Fields), nil
	default:
		panic("unexpected " + action.GetVerb())
	}
}

func (m *fakeAPIServer) next() string {
	m.revision++
	return strconv.Itoa(m.revision)
}

func (m *fakeAPIServer) create(secret *corev1.Secret) (*corev1.Secret, error) {
	key := secret.Namespace + "/" + secret.Name
	if m.secrets[key] != nil {
		return nil, testkit.AlreadyExists()
	}
	secret.ResourceVersion = m.next()
	secret.UID = types.UID("uid-" + secret.ResourceVersion)
	m.setSecret(key, secret)
	return secret.DeepCopy(), nil
}

func (m *fakeAPIServer) patch(a clienttesting.PatchActionImpl) (*corev1.ServiceAccount, error) {
	var body corev1.ServiceAccount
	if err := json.Unmarshal(a.Patch, &body); err != nil {
		panic(err)
	}
	account := m.accounts[a.Namespace+"/"+a.Name]
	switch {
	case account == nil:
		return nil, testkit.NotFound()
	case account.UID != body.UID, account.ResourceVersion != body.ResourceVersion:
		return nil, testkit.Conflict()
	}
	account = account.DeepCopy()
	account.Secrets = body.Secrets
	if len(a.PatchOptions.DryRun) == 0 {
		m.setAccount(account)
	}
	return account, nil
}

func (m *fakeAPIServer) delete(key string, uid types.UID) error {
	switch secret := m.secrets[key]; {
	case secret == nil:
		return testkit.NotFound()
	case secret.UID != uid:
		return testkit.Conflict()
	}
	m.setSecret(key, nil)
	return nil
}

// list returns the metadata of the Secrets of namespace that match selector.
func (m *fakeAPIServer) list(namespace string, selector fields.Selector) *metav1.List {
	list := &metav1.List{}
	for _, secret := range m.secrets {
		if secret.Namespace == namespace && selector.Matches(fields.Set{"type": string(secret.Type), "metadata.name": secret.Name}) {
			list.Items = append(list.Items, runtime.RawExtension{Object: &metav1.PartialObjectMetadata{ObjectMeta: *secret.ObjectMeta.DeepCopy()}})
		}
	}
	return list
}

// setSecret creates or replaces a Secret, or deletes it if secret is nil.
func (m *fakeAPIServer) setSecret(key string, secret *corev1.Secret) {
	m.history = append(m.history, change{secret: secret, formerSecret: m.secrets[key]})
	m.secrets[key] = secret
	if secret == nil {
		delete(m.secrets, key)
	}
}

// setAccount creates or replaces an account, at a new version.
func (m *fakeAPIServer) setAccount(account *corev1.ServiceAccount) {
	key := account.Namespace + "/" + account.Name
	account.ResourceVersion = m.next()
	m.history = append(m.history, change{account: account, formerAccount: m.accounts[key]})
	m.accounts[key] = account
}

func (m *fakeAPIServer) removeAccount(key string) {
	m.history = append(m.history, change{formerAccount: m.accounts[key]})
	delete(m.accounts, key)
}

// dropReferences removes references to a deleted Secret, as the token controller does.
func (m *fakeAPIServer) dropReferences(key string) {
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
