# The image of `make image`, for who builds with a container engine: the same files, laid out by the same script.
#
#   docker build --build-arg REVISION="$(git rev-parse HEAD)" --build-arg CREATED="$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
#     --tag localhost/epochwarden:dev .
#
# A folder that `tools/image.sh --files` has laid out takes the place of the first stage with --build-context build=FOLDER, where the folder
# holds it as `image`.
FROM docker.io/library/rust:1.95.0-bookworm AS build
WORKDIR /epochwarden
COPY . .
ARG REVISION=unknown
RUN tools/image.sh --files /image

FROM scratch
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title=epochwarden \
      org.opencontainers.image.description="The Kubernetes operator and command line that guards the state epochs of stream processors" \
      org.opencontainers.image.version=0.1.0 \
      org.opencontainers.image.revision=$REVISION \
      org.opencontainers.image.created=$CREATED \
      org.opencontainers.image.licenses=Apache-2.0
ENV PATH=/
COPY --from=build /image/ /
WORKDIR /
EXPOSE 8080
USER 65532:65532
ENTRYPOINT ["/epochwarden"]
