package patchlog

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// Component is a program that reports entries, as an Event's reportingComponent.
type Component string

const (
	// AgentComponent reports what happens on its node. Admission knows the agents' entries by it.
	AgentComponent Component = "nodepatch.io/agent"
	// ManagerComponent reports what happens to tasks, and to nodes that say nothing themselves.
	ManagerComponent Component = "nodepatch.io/manager"
)

// letter tells the names of the components' Events apart, so that neither can take a name of the other's.
func (c Component) letter() string {
	if c == AgentComponent {
		return "a"
	}
	return "m"
}

// Namespace is where the Events of cluster-scoped objects live.
const Namespace = "default"

// maxSubject is how much of a node's or task's name goes into an Event's name, of 253 characters in all.
const maxSubject = 200

// maxInstance is how long an Event's reportingInstance may be.
const maxInstance = 128

// Events writes entries as Events of core/v1. It does so by hand: client-go's recorders merge or drop
// Events that differ only in their note, and kubectl describe cannot sort those of events.k8s.io/v1,
// which have no lastTimestamp.
type Events struct {
	client    rest.Interface
	component Component
	instance  string
	echo      io.Writer
}

var _ Sink = (*Events)(nil)

// NewEvents makes a sink that reports as component, which is AgentComponent or ManagerComponent.
// Instance is the agent's node, or the manager's pod. Each entry that was not there before also goes to
// echo as a line of JSON, if echo is not nil.
func NewEvents(client rest.Interface, component Component, instance string, echo io.Writer) *Events {
	if len(instance) > maxInstance {
		instance = instance[:maxInstance]
	}
	return &Events{client: client, component: component, instance: instance, echo: echo}
}

// NewRESTClient makes a client that is enough for Events: it knows no kinds but those of errors.
func NewRESTClient(config *rest.Config) (rest.Interface, error) {
	scheme := runtime.NewScheme()
	version := schema.GroupVersion{Version: "v1"}
	metav1.AddToGroupVersion(scheme, version)

	config = rest.CopyConfig(config)
	config.APIPath = "/api"
	config.GroupVersion = &version
	config.ContentType = runtime.ContentTypeJSON
	config.AcceptContentTypes = runtime.ContentTypeJSON
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("making the client of the patch log: %w", err)
	}
	return client, nil
}

// Write creates the entry's Event. That the Event is already there is success. The errors of the API
// server can be told apart with the functions of k8s.io/apimachinery/pkg/api/errors.
func (s *Events) Write(ctx context.Context, entry Entry) error {
	if err := entry.validate(); err != nil {
		return err
	}
	body, err := json.Marshal(s.event(entry))
	if err != nil {
		return fmt.Errorf("encoding the entry %s: %w", entry.Reason, err)
	}
	err = s.client.Post().
		AbsPath("/api/v1/namespaces", Namespace, "events").
		SetHeader("Content-Type", runtime.ContentTypeJSON).
		Body(body).
		Do(ctx).
		Error()
	switch {
	case apierrors.IsAlreadyExists(err):
		return nil
	case err != nil:
		return fmt.Errorf("writing the entry %s: %w", entry.Reason, err)
	case s.echo != nil:
		return printLine(s.echo, line{Entry: entry})
	}
	return nil
}

// event has the fields of an Event of core/v1 that the patch log sets.
type event struct {
	APIVersion         string     `json:"apiVersion"`
	Kind               string     `json:"kind"`
	Metadata           metadata   `json:"metadata"`
	InvolvedObject     reference  `json:"involvedObject"`
	Related            *reference `json:"related,omitempty"`
	Type               string     `json:"type"`
	Reason             string     `json:"reason"`
	Action             string     `json:"action"`
	Message            string     `json:"message"`
	Source             source     `json:"source"`
	EventTime          string     `json:"eventTime"`
	FirstTimestamp     string     `json:"firstTimestamp"`
	LastTimestamp      string     `json:"lastTimestamp"`
	Count              int        `json:"count"`
	ReportingComponent string     `json:"reportingComponent"`
	ReportingInstance  string     `json:"reportingInstance"`
}

type metadata struct {
	Name      string            `json:"name"`
	Namespace string            `json:"namespace"`
	Labels    map[string]string `json:"labels"`
}

type reference struct {
	APIVersion string `json:"apiVersion,omitempty"`
	Kind       string `json:"kind"`
	Name       string `json:"name"`
	UID        string `json:"uid,omitempty"`
}

type source struct {
	Component string `json:"component"`
	Host      string `json:"host,omitempty"`
}

func (s *Events) event(entry Entry) event {
	at := entry.Time.UTC()
	result := event{
		APIVersion: "v1",
		Kind:       "Event",
		Metadata:   metadata{Name: s.name(entry), Namespace: Namespace, Labels: entry.labels()},
		Type:       "Normal",
		Reason:     entry.Reason,
		// The API server requires an action beside an eventTime; nothing shows it.
		Action:             "Patch",
		Message:            note(entry.Message),
		Source:             source{Component: string(s.component), Host: entry.Node},
		EventTime:          at.Format(metav1.RFC3339Micro),
		FirstTimestamp:     at.Format(time.RFC3339),
		LastTimestamp:      at.Format(time.RFC3339),
		Count:              1,
		ReportingComponent: string(s.component),
		ReportingInstance:  s.instance,
	}
	if entry.Warning {
		result.Type = "Warning"
	}
	task := &reference{APIVersion: v1alpha1.GroupVersion.String(), Kind: "PatchTask", Name: entry.Task, UID: string(entry.TaskUID)}
	switch {
	case entry.Node == "" && entry.Task == "":
		result.InvolvedObject = reference{
			APIVersion: v1alpha1.GroupVersion.String(), Kind: "PatchPolicy", Name: entry.Policy, UID: string(entry.PolicyUID),
		}
		return result
	case entry.Node == "":
		result.InvolvedObject = *task
		return result
	}
	// kubelet gives a Node's Events the Node's name as uid, and kubectl describe node looks for that.
	result.InvolvedObject = reference{APIVersion: "v1", Kind: "Node", Name: entry.Node, UID: entry.Node}
	if entry.Task != "" {
		result.Related = task
	}
	return result
}

// name is that of the entry's Event: what it regards, and then the same for every repetition.
func (s *Events) name(entry Entry) string {
	subject := cmp.Or(entry.Node, entry.Task, entry.Policy)
	if len(subject) > maxSubject {
		subject = strings.TrimRight(subject[:maxSubject], ".-")
	}
	return subject + "." + s.component.letter() + entry.id()
}

func (e Entry) labels() map[string]string {
	labels := map[string]string{}
	for key, value := range map[string]string{
		v1alpha1.NodeLabel: e.Node, v1alpha1.TaskLabel: e.Task, v1alpha1.PolicyLabel: e.Policy,
	} {
		if value != "" {
			labels[key] = LabelValue(value)
		}
	}
	return labels
}
