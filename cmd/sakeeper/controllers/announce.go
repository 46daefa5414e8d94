package controllers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cabundle"
)

// announceCA compares the CA file with what is published in kube-system, for
// people: a wrong --root-ca-file breaks every pod, and the first minute is when
// that can be seen.
func announceCA(ctx context.Context, client kubernetes.Interface, recorder record.EventRecorder, ca cabundle.Bundle) {
	logger := klog.FromContext(ctx)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second) // the work does not wait for it
	defer cancel()
	published, err := client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, api.RootCAConfigMap, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		logger.Info("No root CA is published yet", "fileSHA256", ca.Fingerprint())
		return
	}
	if err != nil {
		logger.Error(err, "Could not compare the root CA with the published one", "fileSHA256", ca.Fingerprint())
		return
	}
	sum := sha256.Sum256([]byte(published.Data[corev1.ServiceAccountRootCAKey]))
	if sum == ca.Sum() {
		logger.Info("The published root CA is that of the file", "fileSHA256", ca.Fingerprint())
		return
	}
	logger.Info("The published root CA differs from that of the file", "fileSHA256", ca.Fingerprint(), "publishedSHA256", hex.EncodeToString(sum[:]))
	published.Kind, published.APIVersion = "ConfigMap", "v1"
	recorder.Eventf(published, corev1.EventTypeWarning, api.ReasonRootCADiffers,
		"The published CA (SHA-256 of ca.crt: %x) is not that of --root-ca-file (%s), which is what ConfigMaps and token Secrets get", sum, ca.Fingerprint())
}
