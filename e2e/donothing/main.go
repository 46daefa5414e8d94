// Command donothing is an admission webhook without logic, with which sakeeper webhook is
// compared. It answers every review on /mutate with the same patch, and allows every other one.
// A GET returns the number of reviews by path.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// server counts the reviews that it answers.
type server struct {
	patch               []byte
	mutations, verdicts atomic.Int64
}

func main() {
	address := flag.String("address", "", "where to serve")
	cert := flag.String("cert", "", "certificate file")
	key := flag.String("key", "", "private key file")
	patch := flag.String("patch", "", "file with the patch")
	flag.Parse()
	if err := run(*address, *cert, *key, *patch); err != nil {
		fmt.Fprintln(os.Stderr, "donothing:", err)
		os.Exit(1)
	}
}

func run(address, cert, key, file string) error {
	patch, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	s := &http.Server{Addr: address, Handler: &server{patch: patch}, ReadHeaderTimeout: 10 * time.Second}
	return s.ListenAndServeTLS(cert, key)
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		_, _ = fmt.Fprintf(w, "%d %d", s.mutations.Load(), s.verdicts.Load())
		return
	}
	// API servers refuse a response without the uid of its request.
	var review struct {
		Request struct {
			UID types.UID `json:"uid"`
		} `json:"request"`
	}
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		http.Error(w, "not JSON", http.StatusBadRequest)
		return
	}
	response := &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
	if r.URL.Path == "/mutate" {
		response.Patch, response.PatchType = s.patch, new(admissionv1.PatchTypeJSONPatch)
		s.mutations.Add(1)
	} else {
		s.verdicts.Add(1)
	}
	body, err := json.Marshal(&admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "AdmissionReview"}, Response: response,
	})
	if err != nil {
		http.Error(w, "cannot answer", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body)
}
