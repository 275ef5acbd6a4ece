"""Start the proxy: `python -m runner.egress DESCRIPTOR`. Only a worker does this."""

import asyncio
import socket
import sys

from runner.base import telemetry
from runner.egress.proxy import main

if __name__ == "__main__":
    telemetry.configure("info", json=not sys.stderr.isatty())
    asyncio.run(main(socket.socket(fileno=int(sys.argv[1]))))
