"""Models are told of the tools."""

import pytest

from runner.api.mcp.tools import TOOLS


@pytest.mark.parametrize("name", TOOLS)
def test_a_schema_is_made_once(name: str) -> None:
    """Making it takes time on the event loop, and every list of tools has all of them."""
    tool = TOOLS[name]
    assert tool.schema is tool.schema
    assert tool.schema["properties"].keys() == tool.arguments.model_fields.keys()
