package cache

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/api"
)

// Field is a field of a ServiceAccount that a template may set. It is comparable.
type Field struct {
	// Name is one of the constants below.
	Name string
	// Key is that of a label or an annotation.
	Key string
}

// The names of fields.
const (
	FieldLabel       = "labels"
	FieldAnnotation  = "annotations"
	FieldAutomount   = "automountServiceAccountToken"
	FieldPullSecrets = "imagePullSecrets"
)

// String returns the field as users know it, such as labels[app].
func (f Field) String() string {
	if f.Key == "" {
		return f.Name
	}
	return f.Name + "[" + f.Key + "]"
}

// BeforeFirstApply is the field manager that the API server gives to the fields of an object without
// managedFields, when the first apply is made. No client has set such fields: admission has, at the
// creation of the object.
const BeforeFirstApply = "before-first-apply"

// FieldState is the value of a field, and who set it.
type FieldState struct {
	// Present is true if the field has a value.
	Present bool
	// Value is "true" or "false" for automountServiceAccountToken, and the names with commas
	// between them for imagePullSecrets.
	Value string
	// Ours is true if the field manager [api.TemplateFieldManager] owns the field.
	Ours bool
	// Other is another field manager that owns the field, the first by name; empty if there is none.
	// It is [BeforeFirstApply] only if that is the only one.
	Other string
}

// Account is a reduced ServiceAccount: only what templates may set, with who set it.
type Account struct {
	// ObjectMeta has the identity without labels and annotations.
	metav1.ObjectMeta

	// Fields are those that are present or owned.
	Fields map[Field]FieldState
}

// SelectableLabels are the labels that count for selectors: those that not only our templates set.
func (a *Account) SelectableLabels() map[string]string {
	selectable := map[string]string{}
	for field, state := range a.Fields {
		if field.Name == FieldLabel && state.Present && (!state.Ours || state.Other != "") {
			selectable[field.Key] = state.Value
		}
	}
	return selectable
}

// Accounts returns an informer of all ServiceAccounts as [Account], with the index by namespace.
func Accounts(client kubernetes.Interface) (toolscache.TypedSharedIndexInformer[*Account], error) {
	return Transformed(coreinformers.NewServiceAccountInformer(client, "", 0, namespaceIndex()), NewAccount)
}

// NewAccount reduces a ServiceAccount.
func NewAccount(account *corev1.ServiceAccount) *Account {
	reduced := &Account{ObjectMeta: identity(account.ObjectMeta), Fields: map[Field]FieldState{}}
	reduced.Labels, reduced.Annotations = nil, nil
	present := func(field Field, value string) { reduced.Fields[field] = FieldState{Present: true, Value: value} }
	for key, value := range account.Labels {
		present(Field{FieldLabel, key}, value)
	}
	for key, value := range account.Annotations {
		if !isReserved(key) {
			present(Field{FieldAnnotation, key}, value)
		}
	}
	if automount := account.AutomountServiceAccountToken; automount != nil {
		present(Field{Name: FieldAutomount}, strconv.FormatBool(*automount))
	}
	if len(account.ImagePullSecrets) > 0 {
		var names []string
		for _, secret := range account.ImagePullSecrets {
			names = append(names, secret.Name)
		}
		present(Field{Name: FieldPullSecrets}, strings.Join(names, ","))
	}
	reduced.setOwners(account.ManagedFields)
	return reduced
}

// setOwners notes who owns the fields.
func (a *Account) setOwners(entries []metav1.ManagedFieldsEntry) {
	if len(entries) == 0 {
		for field, state := range a.Fields {
			state.Other = BeforeFirstApply
			a.Fields[field] = state
		}
		return
	}
	for _, entry := range entries {
		ours := entry.Manager == api.TemplateFieldManager && entry.Operation == metav1.ManagedFieldsOperationApply
		for _, field := range ownedFields(entry) {
			state := a.Fields[field]
			switch {
			case ours:
				state.Ours = true
			case state.Other == "" || state.Other == BeforeFirstApply || entry.Manager != BeforeFirstApply && entry.Manager < state.Other:
				state.Other = entry.Manager
			}
			a.Fields[field] = state
		}
	}
}

// ownedFields are the fields of an entry that templates may set.
func ownedFields(entry metav1.ManagedFieldsEntry) []Field {
	var owned struct {
		Metadata struct {
			Labels      map[string]json.RawMessage `json:"f:labels"`
			Annotations map[string]json.RawMessage `json:"f:annotations"`
		} `json:"f:metadata"`
		Automount   json.RawMessage `json:"f:automountServiceAccountToken"`
		PullSecrets json.RawMessage `json:"f:imagePullSecrets"`
	}
	if entry.FieldsV1 == nil || json.Unmarshal(entry.FieldsV1.GetRawBytes(), &owned) != nil {
		return nil
	}
	var fields []Field
	for _, path := range slices.Sorted(maps.Keys(owned.Metadata.Labels)) {
		if key, ok := strings.CutPrefix(path, "f:"); ok {
			fields = append(fields, Field{FieldLabel, key})
		}
	}
	for _, path := range slices.Sorted(maps.Keys(owned.Metadata.Annotations)) {
		if key, ok := strings.CutPrefix(path, "f:"); ok && !isReserved(key) {
			fields = append(fields, Field{FieldAnnotation, key})
		}
	}
	if owned.Automount != nil {
		fields = append(fields, Field{Name: FieldAutomount})
	}
	if owned.PullSecrets != nil {
		fields = append(fields, Field{Name: FieldPullSecrets})
	}
	return fields
}

// isReserved returns true for annotations that no template may set. kubectl apply keeps a copy of the
// whole object in one of them.
func isReserved(key string) bool {
	domain, _, ok := strings.Cut(key, "/")
	domain = "." + strings.ToLower(domain)
	return ok && (strings.HasSuffix(domain, ".kubernetes.io") || strings.HasSuffix(domain, ".k8s.io"))
}
