"""The cost of a look for secrets: `python -m benchmarks.masking`. Needs no services.

For several sets of secrets and several outputs, it measures the time to make a mask and the memory
that the mask takes, and the time for each byte of output: byte by byte, and in pieces of 32 KiB, in
which output is gathered.
"""

import base64
import random
import string
import time
from collections.abc import Callable
from pathlib import Path

from runner.base.masking import Masker

PIECE = 32 * 1024
OUTPUT = 2**20
SINGLE_BYTES = 2000
_chance = random.Random(13)  # noqa: S311 - made up


def _text(size: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    return "".join(_chance.choices(alphabet, k=size))


def _lines(count: int, width: int, alphabet: str = string.ascii_letters) -> str:
    return "\n".join(_text(width, alphabet) for _ in range(count))


SECRETS = {
    "no secret": [],
    "one token": [_text(40)],
    "a private key of 3 KiB": [_lines(50, 64)],
    "three of 900 lines": [_lines(910, 8) for _ in range(3)],
    "four, every line special": [_lines(245, 32, "<>&\"'/%\\ é" + "abc") for _ in range(4)],
}


def _outputs(secrets: list[str]) -> dict[str, bytes]:
    text = "\n".join(secrets) or "nothing"
    words = " ".join(_text(6) for _ in range(OUTPUT // 7 + 1)).encode()
    nearly = "".join(f"{line[:-1]}!" for line in text.splitlines()).encode()
    encoded = base64.encodebytes(text.encode())
    return {
        "words": words[:OUTPUT],
        "random bytes": _chance.randbytes(OUTPUT),
        "the secrets": (text.encode() * (OUTPUT // len(text) + 1))[:OUTPUT],
        "the secrets, nearly": (nearly * (OUTPUT // len(nearly) + 1))[:OUTPUT],
        "the secrets in base64": (encoded * (OUTPUT // len(encoded) + 1))[:OUTPUT],
    }


def _seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _fed(masker: Masker, output: bytes, piece: int) -> Callable[[], None]:
    def feed() -> None:
        stream = masker.stream()
        for at in range(0, len(output), piece):
            stream.feed(output[at : at + piece])

    return feed


def _resident_kb() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


def main() -> None:
    """Measure and print."""
    print(f"{'secrets':26}{'output':24}{'byte by byte':>16}{'in 32 KiB':>14}")
    for name, secrets in SECRETS.items():
        before = _resident_kb()
        made: list[Masker] = []
        seconds = _seconds(lambda made=made, secrets=secrets: made.append(Masker(secrets)))  # type: ignore[misc]
        grown = _resident_kb() - before
        print(f"{name}: made in {seconds * 1e3:.1f} ms, {grown / 1024:.1f} MiB")
        for kind, output in _outputs(secrets).items():
            alone = _seconds(_fed(made[0], output[:SINGLE_BYTES], 1)) / SINGLE_BYTES
            bulk = _seconds(_fed(made[0], output, PIECE)) / len(output)
            print(f"{'':26}{kind:24}{alone * 1e6:>10.1f} µs/B{bulk * 1e9:>9.1f} ns/B")


if __name__ == "__main__":
    main()
