package pullsecretcopy

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// quoted is how many bytes in a row of a credential no message may have. Of a shorter one, it is all.
const quoted = 8

// redact returns err, or an error without its message if that quotes a credential in secret, as an
// admission webhook could. The reason and code of an API status are kept.
func redact(err error, secret *corev1.Secret) error {
	if err == nil || !quotes(err.Error(), secret) {
		return err
	}
	const leftOut = " (the message is left out, because it quotes the secret)"
	var apiStatus apierrors.APIStatus
	if !errors.As(err, &apiStatus) {
		return errors.New("failed" + leftOut)
	}
	status := apiStatus.Status()
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Reason: status.Reason, Code: status.Code, Message: string(status.Reason) + leftOut,
	}}
}

func quotes(message string, secret *corev1.Secret) bool {
	for _, value := range secret.Data {
		for _, credential := range credentialsIn(value) {
			length := min(quoted, len(credential))
			for i := 0; length > 0 && i+length <= len(message); i++ {
				if strings.Contains(credential, message[i:i+length]) {
					return true
				}
			}
		}
	}
	return false
}

// credentialsIn returns what must not be quoted of a Docker configuration: its values, also decoded, but not
// its keys, which are names of fields and registries.
func credentialsIn(config []byte) []string {
	found := []string{base64.StdEncoding.EncodeToString(config)}
	var decoded any
	if json.Unmarshal(config, &decoded) != nil {
		return append(found, string(config))
	}
	return append(found, valuesIn(decoded)...)
}

func valuesIn(node any) []string {
	var found []string
	switch n := node.(type) {
	case map[string]any:
		for _, value := range n {
			found = append(found, valuesIn(value)...)
		}
	case []any:
		for _, value := range n {
			found = append(found, valuesIn(value)...)
		}
	case string:
		found = append(found, n)
		if decoded, err := base64.StdEncoding.DecodeString(n); err == nil {
			_, password, _ := strings.Cut(string(decoded), ":") // in auth, after the name
			found = append(found, string(decoded), password)
		}
	}
	return found
}
