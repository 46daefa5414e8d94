package controllers

import (
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestCompareRootCA(t *testing.T) {
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
			compareRootCA(t.Context(), client, recorder, ours)
			if diff := cmp.Diff(tc.want, testkit.Events(recorder)); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}
