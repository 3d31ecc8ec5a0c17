// Package api tests the vocabulary and its guards on a real API server: each rule of the CRDs with what it
// accepts and what it refuses, the columns that kubectl prints, the roles, and the admission policies with
// the tokens that the programs really hold.
package api

import (
	"context"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/nodepatch/nodepatch/test/apiserver"
)

var (
	server *apiserver.Server
	admin  client.Client
)

func TestAPI(t *testing.T) {
	apiserver.Require(t)
	RegisterFailHandler(Fail)
	RunSpecs(t, "API")
}

var _ = BeforeSuite(func(ctx SpecContext) {
	// The API server makes its admission policies anew once a second.
	SetDefaultEventuallyTimeout(20 * time.Second)
	SetDefaultEventuallyPollingInterval(20 * time.Millisecond)
	var err error
	server, err = apiserver.Start()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { Expect(server.Stop()).To(Succeed()) })
	Expect(server.Install(ctx)).To(Succeed())
	admin = clientOf(server.Config)
}, NodeTimeout(3*time.Minute))

func clientOf(config *rest.Config) client.Client {
	GinkgoHelper()
	c, err := apiserver.Client(config)
	Expect(err).NotTo(HaveOccurred())
	return c
}

// object parses a manifest.
func object(manifest string) *unstructured.Unstructured {
	GinkgoHelper()
	result := &unstructured.Unstructured{}
	Expect(yaml.Unmarshal([]byte(strings.ReplaceAll(manifest, "\t", "  ")), &result.Object)).To(Succeed(), manifest)
	return result
}

// create asks the API server to create a manifest's object, all but store it, and returns what it would be.
func create(ctx context.Context, manifest string) (*unstructured.Unstructured, error) {
	GinkgoHelper()
	o := object(manifest)
	return o, admin.Create(ctx, o, client.DryRunAll)
}

// verdict creates a manifest's object and compares the answer: the refusal must contain refused, and an
// empty refused means that the object is accepted.
func verdict(ctx context.Context, manifest, refused string) {
	GinkgoHelper()
	_, err := create(ctx, manifest)
	if refused == "" {
		Expect(err).NotTo(HaveOccurred(), manifest)
		return
	}
	Expect(err).To(MatchError(ContainSubstring(refused)), manifest)
}

func mergePatch(patch string) client.Patch {
	return client.RawPatch(types.MergePatchType, []byte(patch))
}
