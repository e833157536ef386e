# An image with nothing in it but one static binary: no shell, no library, no
# package. `tests/real/container.sh` runs this file with a stand-in for the
# compiler (it compiles nothing), and the binary that it is given as Kubernetes
# would.
#
#   docker build --tag pilotfish:0.1.0 .
#
# Pin the base by its digest where builds must be the same for ever:
# --build-arg RUST=1.95-slim-bookworm@sha256:...
ARG RUST=1.95-slim-bookworm
FROM docker.io/library/rust:${RUST} AS build
WORKDIR /src
# Static with the C library of the system, whose resolver reads nsswitch.conf.
# Without it hosts would be asked of DNS first.
RUN mkdir -p /out && echo 'hosts: files dns' > /out/nsswitch.conf
COPY Cargo.toml Cargo.lock ./
COPY benches benches
COPY src src
# Names of functions stay, for backtraces; lines do not.
ENV RUSTFLAGS="-C target-feature=+crt-static" \
    CARGO_PROFILE_RELEASE_DEBUG=0 \
    CARGO_PROFILE_RELEASE_STRIP=debuginfo
# With a target named, the flags are not for the compiler's own plug-ins, which
# cannot be static.
RUN target=$(rustc -vV | sed -n 's/^host: //p') \
    && cargo build --locked --release --bin pilotfish --target "$target" \
    && cp "target/$target/release/pilotfish" /out/pilotfish

FROM scratch
LABEL org.opencontainers.image.title="pilotfish" \
      org.opencontainers.image.description="The inference sidecar" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/nsswitch.conf /etc/nsswitch.conf
# For collectors of traces with https.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/pilotfish /pilotfish
# Not a name: there is no /etc/passwd, and Kubernetes' runAsNonRoot wants a number.
USER 65532:65532
EXPOSE 8001
ENTRYPOINT ["/pilotfish"]
