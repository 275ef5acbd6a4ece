"""Docker, as far as it is needed, and what containers are made of.

docker   the Engine API: no pull, no exec, no archive copy
maker    an image, a user and a configuration, made into a container
spec     every hardening flag, as a pure function; nothing else writes Docker arguments
masks    what covers files of the kernel that tell of the host
runtimes  whether runc or crun starts containers
users    which user id each sandbox has, alone on its host
rootfs   an image's files, built from the distribution's packages
images   which image a name means today
template_image  what the image of a template is called, and the labels that say whose it is
entries  reads an archive of which nothing is believed
layers   what a build changed, made harmless, as a layer of an image
layering  a process that writes such an image, beside the node's
"""
