package tokenrequest

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// fakeAPIServer adds to a fake clientset tokens with claims, preconditions, and
// resourceVersions. It is safe for concurrent use.
type fakeAPIServer struct {
	*fake.Clientset
	tracker clienttesting.ObjectTracker

	// now is the server's clock.
	now func() time.Time

	mu sync.Mutex
	// maxLifetime is the longest lifetime that it grants; zero: any.
	maxLifetime time.Duration
	// tokensErr and writesErr, if set, are the responses to TokenRequests and patches, which
	// are not carried out.
	tokensErr, writesErr error
	// token, if set, replaces the token in responses.
	token string
	// granted counts tokens, and patches counts patches of the data with those that failed.
	granted, patches int
	// onPatch is called with the Secret before and after a patch of the data.
	onPatch func(before, after *corev1.Secret)
}

func newFakeAPIServer(now func() time.Time, objects ...runtime.Object) *fakeAPIServer {
	// The tracker of fake.NewClientset spends a millisecond on the managed fields of each
	// write.
	a := &fakeAPIServer{Clientset: &fake.Clientset{}, tracker: clienttesting.NewObjectTracker(scheme.Scheme, scheme.Codecs.UniversalDecoder()), now: now}
	for _, obj := range objects {
		if err := a.tracker.Add(obj); err != nil {
			panic(err)
		}
	}
	a.AddReactor("create", "serviceaccounts", a.createToken)
	a.AddReactor("patch", "secrets", a.patchSecret)
	a.AddReactor("*", "*", clienttesting.ObjectReaction(a.tracker))
	a.AddWatchReactor("*", func(action clienttesting.Action) (bool, watch.Interface, error) {
		w, err := a.tracker.Watch(action.GetResource(), action.GetNamespace(), action.(clienttesting.WatchActionImpl).ListOptions)
		return true, w, err
	})
	return a
}

// Tracker holds the objects.
func (a *fakeAPIServer) Tracker() clienttesting.ObjectTracker { return a.tracker }

func (a *fakeAPIServer) configure(f func(*fakeAPIServer)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f(a)
}

func (a *fakeAPIServer) createToken(action clienttesting.Action) (bool, runtime.Object, error) {
	request, ok := action.(clienttesting.CreateActionImpl).Object.(*authenticationv1.TokenRequest)
	if !ok {
		return false, nil, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.tokensErr != nil {
		return true, nil, a.tokensErr
	}
	a.granted++
	lifetime := time.Duration(*request.Spec.ExpirationSeconds) * time.Second
	if a.maxLifetime > 0 {
		lifetime = min(lifetime, a.maxLifetime)
	}
	ref := request.Spec.BoundObjectRef
	issued := a.now().Truncate(time.Second)
	response := request.DeepCopy()
	response.Status.Token = cmp.Or(a.token, tokenFor(ref.UID, request.UID, issued, lifetime, strconv.Itoa(a.granted)))
	response.Status.ExpirationTimestamp = metav1.NewTime(issued.Add(lifetime))
	return true, response, nil
}

func tokenFor(secret, account types.UID, issued time.Time, lifetime time.Duration, id string) string {
	payload := fmt.Sprintf(`{"iat":%d,"exp":%d,"jti":%q,"kubernetes.io":{"secret":{"uid":%q},"serviceaccount":{"uid":%q}}}`,
		issued.Unix(), issued.Add(lifetime).Unix(), id, secret, account)
	return secretBytes + "." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".signature"
}

// mergePatchBody has the fields of patches of Secrets.
type mergePatchBody struct {
	Metadata struct {
		UID             types.UID          `json:"uid"`
		ResourceVersion string             `json:"resourceVersion"`
		Annotations     map[string]*string `json:"annotations"`
	} `json:"metadata"`
	Data map[string]*[]byte `json:"data"`
}

func (a *fakeAPIServer) patchSecret(action clienttesting.Action) (bool, runtime.Object, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	patch := action.(clienttesting.PatchActionImpl)
	var body mergePatchBody
	if err := json.Unmarshal(patch.Patch, &body); err != nil || patch.PatchType != types.MergePatchType {
		return true, nil, fmt.Errorf("patch type %s: %w", patch.PatchType, err)
	}
	if body.Data != nil {
		a.patches++
	}
	if a.writesErr != nil {
		return true, nil, a.writesErr
	}
	obj, err := a.Tracker().Get(secretsResource, patch.Namespace, patch.Name)
	if err != nil {
		return true, nil, err
	}
	before := obj.(*corev1.Secret)
	if body.Metadata.UID != before.UID || body.Metadata.ResourceVersion != before.ResourceVersion {
		return true, nil, testkit.Conflict()
	}
	after := before.DeepCopy()
	after.Annotations, after.Data = merged(before.Annotations, body.Metadata.Annotations), merged(before.Data, body.Data)
	after.ResourceVersion = next(before.ResourceVersion)
	if a.onPatch != nil && body.Data != nil {
		a.onPatch(before, after)
	}
	return true, after, a.Tracker().Update(secretsResource, after, patch.Namespace)
}

func merged[T any](before map[string]T, patch map[string]*T) map[string]T {
	after := maps.Clone(before)
	for key, value := range patch {
		if value == nil {
			delete(after, key)
			continue
		}
		if after == nil {
			after = map[string]T{}
		}
		after[key] = *value
	}
	return after
}

func next(version string) string {
	n, _ := strconv.Atoi(version)
	return strconv.Itoa(n + 1)
}

// secret returns team/s of the API server, or nil.
func (a *fakeAPIServer) secret() *corev1.Secret {
	obj, err := a.Tracker().Get(secretsResource, "team", "s")
	if err != nil {
		return nil
	}
	return obj.(*corev1.Secret)
}

// updateSecret changes team/s as a user does.
func (a *fakeAPIServer) updateSecret(change func(*corev1.Secret)) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	secret := a.secret().DeepCopy()
	change(secret)
	secret.ResourceVersion = next(secret.ResourceVersion)
	return a.Tracker().Update(secretsResource, secret, "team")
}

// grantedTokens returns how many tokens were granted.
func (a *fakeAPIServer) grantedTokens() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.granted
}
