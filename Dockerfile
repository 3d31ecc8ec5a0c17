# One image with both programs: the manager, which runs as a user without
# rights, and the agent, which the manager runs privileged on the nodes. For every
# architecture of Kubernetes, each cross-compiled on the builder's own:
#   docker buildx build --platform linux/amd64,linux/arm64,linux/s390x,linux/ppc64le --build-arg VERSION=v1 -t $IMG --push .
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
ARG TARGETOS TARGETARCH VERSION=dev
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY api/ api/
COPY controllers/ controllers/
COPY nodeagent/ nodeagent/
ENV CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH
RUN go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /out/manager ./controllers/manager && \
    go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /out/agent ./nodeagent

FROM scratch
COPY --from=build /out/manager /out/agent /
USER 65532:65532
ENTRYPOINT ["/manager"]
