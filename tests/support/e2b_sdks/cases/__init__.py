"""The cases, by the package that they are about."""

from tests.support.e2b_sdks.case import Cases
from tests.support.e2b_sdks.cases import (
    builds,
    charts,
    commands,
    files,
    git,
    interpreter,
    lifecycle,
    refused,
)

CASES: dict[str, Cases] = {
    "e2b": Cases(
        lifecycle.CASES | commands.CASES | files.CASES | git.CASES | builds.CASES | refused.CASES
    ),
    "e2b_code_interpreter": Cases(interpreter.CASES | charts.CASES),
}
