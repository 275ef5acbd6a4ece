# The Docker daemon of a node, with gVisor: Debian's packages, whose security updates a rebuild brings.
FROM debian:trixie-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends apparmor docker-cli docker.io runsc \
 && rm -rf /var/lib/apt/lists/*
