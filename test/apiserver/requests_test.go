package apiserver

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// The suites prove with Requests that nothing is written, and that nothing is refused: it must miss
// neither a write nor a refusal.
func TestRequests(t *testing.T) {
	Require(t)
	server, _ := Run(t)
	var requests Requests
	watched, err := Client(requests.Watch(server.Config))
	if err != nil {
		t.Fatal(err)
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "watched"}}
	for _, attempt := range []func() error{
		func() error { return watched.Create(t.Context(), namespace) },
		func() error { return watched.Get(t.Context(), client.ObjectKeyFromObject(namespace), namespace) },
		func() error { return watched.Update(t.Context(), namespace) },
		func() error {
			return watched.Status().Patch(t.Context(), namespace, client.RawPatch("application/merge-patch+json", []byte("{}")))
		},
	} {
		if err := attempt(); err != nil {
			t.Fatal(err)
		}
	}
	absent := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "absent"}}
	if err := watched.Delete(t.Context(), absent); !apierrors.IsNotFound(err) {
		t.Fatalf("Deleting a namespace that is not there: %v", err)
	}
	if refused := requests.Forbidden(); len(refused) > 0 {
		t.Errorf("The administrator was refused %q", refused)
	}
	const path = "/api/v1/namespaces"
	for part, want := range map[string][]string{
		"": {
			http.MethodPost + " " + path, http.MethodPut + " " + path + "/watched",
			http.MethodPatch + " " + path + "/watched/status", http.MethodDelete + " " + path + "/absent",
		},
		"/watched":        {http.MethodPut + " " + path + "/watched", http.MethodPatch + " " + path + "/watched/status"},
		"/watched/status": {http.MethodPatch + " " + path + "/watched/status"},
		"/nodes":          nil,
	} {
		if got := requests.To(part); !slices.Equal(got, want) {
			t.Errorf("Writes to %q are %q, want %q", part, got, want)
		}
	}

	unknown := rest.AnonymousClientConfig(server.Config)
	unknown.BearerToken = "of nobody"
	powerless := rest.CopyConfig(server.Config)
	powerless.Impersonate.UserName = "somebody"
	for name, test := range map[string]struct {
		config *rest.Config
		want   string
	}{
		"a token of nobody":     {unknown, "401 Unauthorized"},
		"a user without rights": {powerless, "403 Forbidden"},
	} {
		t.Run(name, func(t *testing.T) {
			var requests Requests
			transport, err := rest.TransportFor(requests.Watch(test.config))
			if err != nil {
				t.Fatal(err)
			}
			response, err := (&http.Client{Transport: transport}).Get(strings.TrimSuffix(test.config.Host, "/") + path)
			if err != nil {
				t.Fatal(err)
			}
			if err := response.Body.Close(); err != nil {
				t.Error(err)
			}
			if got, want := requests.Forbidden(), []string{"GET " + path + ": " + test.want}; !slices.Equal(got, want) {
				t.Errorf("Refused %q, want %q", got, want)
			}
		})
	}
}
