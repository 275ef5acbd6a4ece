"""How long a sandbox may take over what it was told to do."""

import asyncio

from runner.errors import ProtocolViolation


class patience:  # noqa: N801 - reads as a verb beside asyncio.timeout
    """`asyncio.timeout` whose end is the sandbox's fault."""

    def __init__(self, seconds: float, what: str) -> None:
        self._timeout = asyncio.timeout(seconds)
        self._what = what

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, *exc: object) -> None:
        try:
            await self._timeout.__aexit__(*exc)  # type: ignore[arg-type]
        except TimeoutError:
            raise ProtocolViolation(f"the sandbox did not {self._what} in time") from None
