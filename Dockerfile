# syntax=docker/dockerfile:1
FROM rust:1.95-slim-trixie AS build
# The allocator's build needs it.
RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock build.rs ./
COPY .cargo .cargo
COPY benches benches
COPY connectors connectors
COPY docs/operations docs/operations
COPY mappings mappings
COPY src src
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin patchbay \
    && cp target/release/patchbay /patchbay \
    && mkdir /data

# The C library and certificates; no shell, no package manager.
FROM gcr.io/distroless/cc-debian13:nonroot
COPY --from=build /patchbay /usr/local/bin/patchbay
COPY --from=build --chown=65532:65532 --chmod=0700 /data /data
USER 65532:65532
ENV PATCHBAY_LISTEN=0.0.0.0:8080 PATCHBAY_DATA_DIR=/data
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=6s --start-period=10s --retries=3 CMD ["/usr/local/bin/patchbay", "health"]
ENTRYPOINT ["/usr/local/bin/patchbay"]
CMD ["serve"]
