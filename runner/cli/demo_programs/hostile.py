"""A hostile program: each attempt prints one line of JSON that says what stopped it."""

import ctypes
import json
import os
import socket

libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWUSER = 0x10000000


def attempt(title, action):
    try:
        got = action()
    except OSError as error:
        print(json.dumps({"try": title, "refused": error.strerror}), flush=True)
    else:
        print(json.dumps({"try": title, "succeeded": repr(got)[:80]}), flush=True)


def connect(host, port):
    return lambda: socket.create_connection((host, port), timeout=3)


def call(name, *arguments):
    def action():
        if getattr(libc, name)(*arguments) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    return action


def fork_bomb():
    children = 0
    while True:
        if os.fork() == 0:
            while True:
                pass
        children += 1
        if children > 5000:
            return children


attempt("reach the network", connect("192.0.2.1", 443))
attempt("look up a name", lambda: socket.getaddrinfo("example.com", 443))
attempt("ask the cloud's metadata address", connect("169.254.169.254", 80))
attempt("reach the host's PostgreSQL", connect("127.0.0.1", 5432))
attempt("talk to Docker", lambda: socket.socket(socket.AF_UNIX).connect("/var/run/docker.sock"))
attempt("read the host's shadow file", lambda: open("/etc/shadow").read())
attempt("read the supervisor's memory", lambda: open("/proc/1/mem", "rb").read(1))
attempt("write into the image", lambda: open("/usr/bin/python3", "wb"))
attempt("unshare a user namespace", call("unshare", CLONE_NEWUSER))
attempt("mount a file system", call("mount", b"none", b"/tmp", b"tmpfs", 0, None))
attempt("become root", lambda: os.setuid(0))
attempt("fork without end", fork_bomb)
