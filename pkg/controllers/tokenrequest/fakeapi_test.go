package tokenrequest

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"

	"github.com/sakeeper/sakeeper/pkg/testkit/fakeapi"
)

// fakeAPIServer is a fake API server that issues tokens with claims. It is safe for concurrent use.
type fakeAPIServer struct {
	*fakeapi.Server

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
	a := &fakeAPIServer{Server: fakeapi.New(objects...), now: now}
	a.PrependReactor("create", "serviceaccounts", a.createToken)
	a.PrependReactor("patch", "secrets", a.patchSecret)
	return a
}

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

func (a *fakeAPIServer) patchSecret(action clienttesting.Action) (bool, runtime.Object, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	patch := action.(clienttesting.PatchActionImpl)
	var body struct {
		Metadata metav1.ObjectMeta `json:"metadata"`
		Data     map[string][]byte `json:"data"`
	}
	if err := json.Unmarshal(patch.Patch, &body); err != nil {
		return true, nil, err
	}
	if body.Metadata.UID == "" || body.Metadata.ResourceVersion == "" {
		return true, nil, errors.New("a patch without preconditions")
	}
	if body.Data != nil {
		a.patches++
	}
	if a.writesErr != nil {
		return true, nil, a.writesErr
	}
	before := fakeapi.Get[corev1.Secret](a.Server, patch.Namespace+"/"+patch.Name)
	_, obj, err := clienttesting.ObjectReaction(a.Tracker())(action)
	if err != nil {
		return true, nil, err
	}
	if a.onPatch != nil && body.Data != nil {
		a.onPatch(before, obj.(*corev1.Secret))
	}
	return true, obj, nil
}

// secret returns team/s of the API server, or nil.
func (a *fakeAPIServer) secret() *corev1.Secret {
	return fakeapi.Get[corev1.Secret](a.Server, "team/s")
}

// updateSecret changes team/s as a user does.
func (a *fakeAPIServer) updateSecret(change func(*corev1.Secret)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	secret := a.secret()
	change(secret)
	a.Set(secret)
}

// grantedTokens returns how many tokens were granted.
func (a *fakeAPIServer) grantedTokens() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.granted
}
