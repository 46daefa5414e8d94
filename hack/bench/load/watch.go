package load

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	toolscache "k8s.io/client-go/tools/cache"
)

// tokenSecrets is the field selector of token Secrets.
const tokenSecrets = "type=" + string(corev1.SecretTypeServiceAccountToken)

// watch calls seen for every object that exists or changes, and gone for every one that is
// deleted, from one goroutine. It returns after the initial list.
func watch[T runtime.Object](ctx context.Context, w worker, resource, selector string, example T, seen, gone func(T)) error {
	parsed, err := fields.ParseSelector(selector)
	if err != nil {
		return err
	}
	list := toolscache.NewListWatchFromClient(w.client.CoreV1().RESTClient(), resource, "", parsed)
	informer := toolscache.NewSharedIndexInformer(list, example, 0, nil)
	call := func(f func(T), obj any) {
		if last, ok := obj.(toolscache.DeletedFinalStateUnknown); ok {
			obj = last.Obj
		}
		if t, ok := obj.(T); ok && f != nil {
			f(t)
		}
	}
	handler, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { call(seen, obj) },
		UpdateFunc: func(_, obj any) { call(seen, obj) },
		DeleteFunc: func(obj any) { call(gone, obj) },
	})
	if err != nil {
		return err
	}
	go informer.RunWithContext(ctx)
	if !toolscache.WaitForCacheSync(ctx.Done(), handler.HasSynced) {
		return errors.New("the watch of " + resource + " did not begin")
	}
	return nil
}
