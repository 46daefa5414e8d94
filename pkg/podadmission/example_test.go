package podadmission_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/podadmission"
	"github.com/sakeeper/sakeeper/pkg/podadmission/rules"
)

// pod is the pod that the examples create.
const pod = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web"},"spec":{"containers":[{"name":"main","image":"example.com/web"}]}}`

func newReview() admissionv1.AdmissionReview {
	return admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID:       "1",
			Kind:      metav1.GroupVersionKind{Version: "v1", Kind: "Pod"},
			Resource:  metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
			Namespace: "team",
			Operation: admissionv1.Create,
			Object:    runtime.RawExtension{Raw: []byte(pod)},
		},
	}
}

// A server of one's own, with an informer of one's own.
func ExampleReviewer_MutateHandler() {
	client := fake.NewClientset(&corev1.ServiceAccount{
		ObjectMeta:       metav1.ObjectMeta{Namespace: "team", Name: "default"},
		ImagePullSecrets: []corev1.LocalObjectReference{{Name: "registry"}},
	})
	factory := informers.NewSharedInformerFactory(client, 0)
	accounts := factory.Core().V1().ServiceAccounts().Informer()
	reviewer, err := podadmission.New(podadmission.Config{
		ServiceAccounts: accounts,
		Client:          client.CoreV1(),
		// Without this, the name of the volume ends in random letters.
		Settings: rules.Settings{Suffix: func() string { return "abcde" }},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	factory.StartWithContext(ctx)
	defer factory.Shutdown()
	defer cancel()
	toolscache.WaitForCacheSync(ctx.Done(), accounts.HasSynced)

	mux := http.NewServeMux()
	mux.Handle("/mutate/pods", reviewer.MutateHandler())
	mux.Handle("/validate/pods", reviewer.ValidateHandler())
	server := httptest.NewServer(mux) // API servers call HTTPS only
	defer server.Close()

	body, err := json.Marshal(newReview())
	if err != nil {
		fmt.Println(err)
		return
	}
	response, err := http.Post(server.URL+"/mutate/pods", "application/json", bytes.NewReader(body))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer response.Body.Close()
	var answer admissionv1.AdmissionReview
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		fmt.Println(err)
		return
	}
	var patch []struct {
		Op   string `json:"op"`
		Path string `json:"path"`
	}
	if err := json.Unmarshal(answer.Response.Patch, &patch); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("allowed:", answer.Response.Allowed)
	for _, operation := range patch {
		fmt.Println(operation.Op, operation.Path)
	}
	// Output:
	// allowed: true
	// add /spec/serviceAccountName
	// add /spec/imagePullSecrets
	// add /spec/volumes
	// add /spec/containers/0/volumeMounts
}

// Without HTTP, as in a webhook that has more to decide than ServiceAccounts.
func ExampleReviewer_Validate() {
	client := fake.NewClientset(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "default"}})
	accounts, err := podadmission.Accounts(client)
	if err != nil {
		fmt.Println(err)
		return
	}
	// The informer is not run here, so the ServiceAccount is read live.
	reviewer, err := podadmission.New(podadmission.Config{Accounts: accounts, Client: client.CoreV1()})
	if err != nil {
		fmt.Println(err)
		return
	}
	response, err := reviewer.Validate(context.Background(), newReview().Request)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(response.Allowed, response.Result.Code, response.Result.Message)
	// Output: false 403 pods "web" is forbidden: no service account specified for pod team/web
}
