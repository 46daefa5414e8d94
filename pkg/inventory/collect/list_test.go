package collect

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var errBoom = errors.New("boom")

func TestPages(t *testing.T) {
	expired := func(token string) error {
		err := apierrors.NewResourceExpired("the version is gone")
		err.ErrStatus.Continue = token
		return err
	}
	type answer struct {
		token string
		err   error
	}
	cases := map[string]struct {
		in      []answer
		want    []string // the continue tokens that were sent
		wantErr error
	}{
		"one chunk":                           {in: []answer{{}}, want: []string{""}},
		"three chunks":                        {in: []answer{{token: "a"}, {token: "b"}, {}}, want: []string{"", "a", "b"}},
		"an error ends it":                    {in: []answer{{token: "a"}, {err: errBoom}}, want: []string{"", "a"}, wantErr: errBoom},
		"a chunk expired, and there is a way": {in: []answer{{token: "a"}, {err: expired("now")}, {}}, want: []string{"", "a", "now"}},
		"a chunk expired for good":            {in: []answer{{token: "a"}, {err: expired("")}}, want: []string{"", "a"}, wantErr: expired("")},
		"the first chunk expired":             {in: []answer{{err: expired("now")}}, want: []string{""}, wantErr: expired("now")},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var sent []string
			err := pages(t.Context(), metav1.ListOptions{Limit: 10}, func(_ context.Context, opts metav1.ListOptions) (string, int64, error) {
				sent = append(sent, opts.Continue)
				a := tc.in[len(sent)-1]
				return a.token, opts.Limit, a.err
			})
			if diff := cmp.Diff(tc.want, sent); diff != "" {
				t.Error(diff)
			}
			if (err == nil) != (tc.wantErr == nil) || errors.Is(tc.wantErr, errBoom) != errors.Is(err, errBoom) {
				t.Errorf("got %v, want %v", err, tc.wantErr)
			}
		})
	}
}
