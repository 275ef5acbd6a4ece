# The sandbox images of a release, to be loaded into the Docker daemon of each node.
ARG DOCKER
FROM ${DOCKER}
COPY images.tar /images.tar
