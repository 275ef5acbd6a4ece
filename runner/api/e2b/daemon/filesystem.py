"""`/filesystem.Filesystem/…`: look at, make, move, remove and watch files, as E2B's clients ask."""

import posixpath
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from runner.api.counting import ENTRIES_FOR_ONE, count
from runner.api.deps import Parts
from runner.api.e2b.daemon.answers import KEEPALIVE
from runner.api.e2b.daemon.calls import Answers, CallRoute, streamed
from runner.api.e2b.daemon.connect import UNARY
from runner.api.e2b.daemon.listing import MAX_DEPTH, MAX_ENTRIES, listed, require_whole
from runner.api.e2b.daemon.messages import (
    ListDirRequest,
    MoveRequest,
    PathRequest,
    WatchDirRequest,
    WatcherRequest,
    resolved,
)
from runner.api.e2b.daemon.process import FRAMES, STREAMED
from runner.api.e2b.daemon.tree import Looks, Tree
from runner.api.e2b.daemon.users import CallingUser
from runner.api.e2b.inside import InSandbox
from runner.api.edge.groups import Group
from runner.words.errors import FileRefused

OBJECT = {"type": "object", "additionalProperties": True}

router = APIRouter(prefix="/filesystem.Filesystem", tags=["e2b"], route_class=CallRoute)


@router.post("/Stat", summary="Look at a file (E2B)")
async def stat(
    inside: InSandbox, parts: Parts, _: CallingUser, body: PathRequest
) -> dict[str, Any]:
    """Describe a file, folder or link."""
    files = Tree(parts.using, inside)
    return {"entry": await files.described(await files.stat(resolved(body.path)))}


@router.post("/MakeDir", summary="Make a folder (E2B)")
async def make_dir(
    inside: InSandbox, parts: Parts, _: CallingUser, body: PathRequest
) -> dict[str, Any]:
    """Make a folder, and those above it."""
    files = Tree(parts.using, inside)
    path = resolved(body.path)
    try:
        made = await files.make(path, parents=False)
    except FileRefused as error:
        if error.errno_name == "EEXIST":
            raise await files.exists(path) from None
        if error.errno_name != "ENOENT":
            raise
        made = await files.make(path, parents=True)
    return {"entry": await files.described(made)}


@router.post("/Move", summary="Move a file (E2B)")
async def move(
    inside: InSandbox, parts: Parts, _: CallingUser, body: MoveRequest
) -> dict[str, Any]:
    """Rename a file, folder or link, and make the folders above its new name."""
    files = Tree(parts.using, inside)
    source, target = resolved(body.source), resolved(body.destination)
    try:
        moved = await files.move(source, target)
    except FileRefused as error:
        above = posixpath.dirname(target)
        if error.errno_name != "ENOENT" or not above:
            raise
        # Only what is there can be moved: its absence makes no folder.
        await files.stat(source)
        await files.make(above, parents=True)
        moved = await files.move(source, target)
    return {"entry": await files.described(moved)}


@router.post(
    "/ListDir",
    summary="List a folder (E2B)",
    responses={200: {"description": "The entries.", "content": {UNARY: {"schema": OBJECT}}}},
)
async def list_dir(
    inside: InSandbox, parts: Parts, _: CallingUser, body: ListDirRequest
) -> Response:
    """List a folder, and those below it down to `depth`. Many entries cost as much as requests."""
    found = await parts.using.list_files(
        inside.caller,
        inside.sandbox_id,
        resolved(body.path),
        depth=min(max(body.depth, 1), MAX_DEPTH),
        most=MAX_ENTRIES,
    )
    require_whole(found, body.depth)
    await count(parts, inside.caller, Group.USE, len(found.files) // ENTRIES_FOR_ONE)
    return Response(await listed(Tree(parts.using, inside), found), media_type=UNARY)


@router.post("/Remove", summary="Remove a file (E2B)")
async def remove(
    inside: InSandbox, parts: Parts, _: CallingUser, body: PathRequest
) -> dict[str, Any]:
    """Remove a file, a link, or a folder with all that is in it, if it is there at all."""
    try:
        await parts.using.remove_file(
            inside.caller, inside.sandbox_id, resolved(body.path), recursive=True
        )
    except FileRefused as error:
        if error.errno_name != "ENOENT":
            raise
    return {}


@router.post("/WatchDir", summary="Watch a folder (E2B)", openapi_extra=STREAMED, responses=FRAMES)
async def watch_dir(request: Request, inside: InSandbox, parts: Parts, _: CallingUser) -> Response:
    """Stream what changes below a folder, from the stream's first message on."""
    work = partial(_watched, Tree(parts.using, inside))
    return await streamed(request, WatchDirRequest, work, KEEPALIVE)


async def _watched(files: Tree, asked: WatchDirRequest, _: float | None) -> Answers:
    root = await files.folder(resolved(asked.path))
    async with files.using.watch_files(
        files.inside.caller, files.inside.sandbox_id, root, recursive=asked.recursive
    ) as stream:
        yield {"start": {}}
        looks = Looks(each_s=1.0) if asked.include_entry else None
        async for seen in stream.changes():
            async for change in files.changes(root, seen, looks):
                yield {"filesystem": change}


@router.post("/CreateWatcher", summary="Begin to watch a folder (E2B)")
async def create_watcher(
    inside: InSandbox, parts: Parts, _: CallingUser, body: WatchDirRequest
) -> dict[str, Any]:
    """Watch a folder until nobody asks for its changes any more."""
    files = Tree(parts.using, inside)
    root = await files.folder(resolved(body.path))
    name = await parts.watchers.begin(
        inside.caller,
        inside.sandbox_id,
        root,
        recursive=body.recursive,
        described=body.include_entry,
    )
    return {"watcherId": name}


@router.post("/GetWatcherEvents", summary="Read what a watcher has seen (E2B)")
async def get_watcher_events(
    inside: InSandbox, parts: Parts, body: WatcherRequest
) -> dict[str, Any]:
    """Return what has changed since the last time; of many changes, the first are described."""
    seen = parts.watchers.seen(inside.caller, inside.sandbox_id, body.watcher_id)
    looks = Looks() if seen.described else None
    found = Tree(parts.using, inside).changes(seen.path, seen.changes, looks)
    return {"events": [each async for each in found]}


@router.post("/RemoveWatcher", summary="End a watcher (E2B)")
async def remove_watcher(inside: InSandbox, parts: Parts, body: WatcherRequest) -> dict[str, Any]:
    """Watch no longer."""
    await parts.watchers.end(inside.caller, inside.sandbox_id, body.watcher_id)
    return {}
