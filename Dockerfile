# The operator and the helper that runs inside sandboxes: two static binaries, a configuration of git for sandboxes, and nothing else.
# There is no builder stage, so that no registry is needed to make the image: `make image` compiles both outside and hands
# over a folder with exactly `aigise-operator`, `sandboxd` and `gitconfig` as the context.
FROM scratch
LABEL org.opencontainers.image.title="aigise-operator" \
      org.opencontainers.image.description="Runs AI security-analysis sessions on Kubernetes" \
      org.opencontainers.image.source="https://github.com/aigise/aigise-operator" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --chmod=0755 aigise-operator sandboxd /
COPY --chmod=0644 gitconfig /
USER 65532:65532
ENTRYPOINT ["/aigise-operator"]
