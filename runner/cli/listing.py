"""Prints lists: as a table that fits the terminal, as columns in a pipe, or as JSON."""

import base64
import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from runner.cli.console import err, out, plain

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, with every value exact.")]

UNCUT = 10_000
"""Columns in a pipe: its reader gets each row on one line."""


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """A column. If it is `whole`, it is never cut, so that it can be copied."""

    name: str
    whole: bool = False


Cell = str | Text


def print_rows(
    columns: Sequence[str | Column], rows: Iterable[Sequence[Cell]], *, none: str
) -> None:
    """Print rows below the names of the columns, or say on stderr that there are none."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for each in columns:
        column = each if isinstance(each, Column) else Column(each)
        table.add_column(column.name, no_wrap=column.whole, overflow="fold")
    for row in rows:
        table.add_row(*(plain(cell) if isinstance(cell, str) else cell for cell in row))
    if table.row_count:
        print_table(table)
    else:
        err.print(none, highlight=False)


def print_facts(named: Iterable[tuple[str, Cell]]) -> None:
    """Print the facts about one thing, one on each line."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in named:
        table.add_row(Text(name, "dim"), plain(value) if isinstance(value, str) else value)
    print_table(table)


def print_table(table: Table) -> None:
    """Print a table as wide as the terminal, or in a pipe, as wide as needed."""
    if out.is_terminal:
        out.print(table)
        return
    uncut = Console(width=UNCUT)
    with uncut.capture() as captured:
        uncut.print(table)
    sys.stdout.writelines(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    sys.stdout.write(json.dumps(value, default=_jsonable, ensure_ascii=False, indent=2) + "\n")


def _jsonable(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        # Write bytes as the API sends them.
        raw = fields.pop("raw", None)
        return fields if raw is None else {**_content(raw), **fields}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, UUID | Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _content(raw: bytes) -> dict[str, str]:
    try:
        return {"content": raw.decode(), "encoding": "utf-8"}
    except UnicodeDecodeError:
        return {"content": base64.b64encode(raw).decode(), "encoding": "base64"}


def print_older(cursor: str | None) -> None:
    """Say how to list older entries, if there are any."""
    if cursor is not None:
        err.print(f"older ones: --cursor {cursor}", highlight=False, soft_wrap=True)
