package controllers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cabundle"
)

// publishedCA is the root CA that kube-system has.
type publishedCA struct {
	configMap *corev1.ConfigMap // nil if there is none
	pem       []byte
	err       error // why it is not known
}

func readPublishedCA(ctx context.Context, client kubernetes.Interface) publishedCA {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second) // the controllers must not wait longer
	defer cancel()
	configMap, err := client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, api.RootCAConfigMap, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return publishedCA{}
	}
	if err != nil {
		return publishedCA{err: err}
	}
	return publishedCA{configMap: configMap, pem: []byte(configMap.Data[corev1.ServiceAccountRootCAKey])}
}

// beginCA decides which root CA the controllers begin with, and returns when that is known, or ctx ends.
// A nil verified is always satisfied with what is configured.
func beginCA(ctx context.Context, client kubernetes.Interface, recorder record.EventRecorder, ca Source[cabundle.Bundle], verified *verifiedCA) {
	_ = wait.PollUntilContextCancel(ctx, rereadInterval, true, func(ctx context.Context) (bool, error) { // the caller sees that ctx has ended
		published := readPublishedCA(ctx, client)
		if verified != nil {
			if err := verified.begin(ctx, published); err != nil {
				klog.FromContext(ctx).Error(err, "The controllers wait for the published root CA")
				return false, nil
			}
		}
		published.compare(klog.FromContext(ctx), recorder, ca.Get())
		return true, nil
	})
}

// compare logs whether ca, which is about to be published, is published already, and records a Warning
// event if another one is: a wrong root CA breaks every pod, and the start is when an operator can notice.
func (p publishedCA) compare(logger klog.Logger, recorder record.EventRecorder, ca cabundle.Bundle) {
	if p.err != nil {
		logger.Error(p.err, "Could not compare the root CA with the published one", "sha256", ca.Fingerprint())
		return
	}
	if p.configMap == nil {
		logger.Info("No root CA is published yet", "sha256", ca.Fingerprint())
		return
	}
	sum := sha256.Sum256(p.pem)
	if sum == ca.Sum() {
		logger.Info("The published root CA stays", "sha256", ca.Fingerprint())
		return
	}
	logger.Info("The published root CA is not the configured one", "sha256", ca.Fingerprint(), "publishedSHA256", hex.EncodeToString(sum[:]))
	p.configMap.Kind, p.configMap.APIVersion = "ConfigMap", "v1"
	recorder.Eventf(p.configMap, corev1.EventTypeWarning, api.ReasonRootCADiffers,
		"The published CA (SHA-256 of ca.crt: %x) is not that of --root-ca-file (%s), which is what ConfigMaps and token Secrets get", sum, ca.Fingerprint())
}
