package controllers

import (
	"context"
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"

	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestAnotherPublishedRootCAIsAnEvent(t *testing.T) {
	published := func(data string) *corev1.ConfigMap {
		return testkit.ConfigMap("kube-system/kube-root-ca.crt", testkit.WithData("ca.crt", data))
	}
	ours, theirs := testkit.Bundle(), testkit.OtherBundle()
	event := func(published string) []string {
		return []string{"Warning RootCADiffers The published CA (SHA-256 of ca.crt: " + published + ") is not that of --root-ca-file (" + ours.Fingerprint() + "), which is what ConfigMaps and token Secrets get involvedObject{kind=ConfigMap,apiVersion=v1}"}
	}
	cases := map[string]struct {
		in    *corev1.ConfigMap
		inErr error
		want  []string
	}{
		"the same":                   {in: published(string(ours.PEM()))},
		"none":                       {inErr: testkit.NotFound()},
		"one that cannot be read":    {inErr: testkit.QuotaExceeded()},
		"something else is an event": {in: published("garbage"), want: event(fmt.Sprintf("%x", sha256.Sum256([]byte("garbage"))))},
		"another one is an event":    {in: published(string(theirs.PEM())), want: event(theirs.Fingerprint())},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			client := &fake.Clientset{}
			client.AddReactor("get", "configmaps", func(clienttesting.Action) (bool, runtime.Object, error) {
				if tc.inErr != nil {
					return true, nil, tc.inErr
				}
				return true, tc.in, nil
			})
			recorder := record.NewFakeRecorder(10)
			recorder.IncludeObject = true
			beginCA(t.Context(), client, recorder, constantCA(), nil)
			if diff := cmp.Diff(tc.want, testkit.Events(recorder)); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

// TestControllersWaitForThePublishedRootCA: with a root CA that does not verify the API server, they must
// not begin before it is known what is published.
func TestControllersWaitForThePublishedRootCA(t *testing.T) {
	right := testkit.OtherBundle()
	reads := 0
	client := &fake.Clientset{}
	client.AddReactor("get", "configmaps", func(clienttesting.Action) (bool, runtime.Object, error) {
		if reads++; reads == 1 {
			return true, nil, testkit.QuotaExceeded()
		}
		return true, testkit.ConfigMap("kube-system/kube-root-ca.crt", testkit.WithData("ca.crt", string(right.PEM()))), nil
	})
	v := newVerifiedCA(constantCA(), func(_ context.Context, bundle cabundle.Bundle) verification {
		if bundle.Equal(right) {
			return verified
		}
		return failed
	})
	recorder := record.NewFakeRecorder(10)
	beginCA(t.Context(), client, recorder, v, v)
	if !v.Get().Equal(right) || v.Ready() == nil || reads != 2 {
		t.Errorf("in use %s after %d reads, ready: %v", v.Get().Fingerprint(), reads, v.Ready())
	}
	if events := testkit.Events(recorder); len(events) > 0 {
		t.Errorf("what is published stays, and an event says otherwise: %q", events)
	}
}
