"""The program in the sandbox of a build: prepares a root, runs steps in it, gathers what changed.

It runs as root of gVisor, with the sandbox's own Python and nothing else. A step may have changed
all that it leaves, so its node checks each entry (`runner.sandbox.engine.layers`).
"""

import ctypes
import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
from itertools import accumulate
from pathlib import Path
from typing import Any

BUILD = Path("/mnt")
UPPER, WORK, ROOT = BUILD / "upper", BUILD / "work", BUILD / "root"
ACCOUNTS = ("passwd", "group")
DEBIANS = Path("/usr/share/base-passwd")
"""Where Debian's package of that name has them."""
TRUST = "tmp/.egress/trusted.pem"
SKELETON = "opt/skeleton"
KEPT_ACCOUNTS = "opt/accounts"
"""Where a template keeps the users that its steps have made, for builds on it."""
NOT_KEPT = frozenset({"root", "nobody", "nogroup", "tty"})
HOMES = Path("/home")
SYSTEM = ("/usr/local/sbin", "/usr/sbin", "/sbin")
MOUNTED = ("proc", "dev", "sys", "run", "tmp", "mnt")
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"
_MADE_OPAQUE = "trusted.overlay.opaque"
TOLD = 10
"""How many of the files that are not kept the log names."""
_PR_CAPBSET_DROP = 24
_SYS_ADMIN = 21
"""The capability to mount (capabilities(7)): no step has it."""


def prepare() -> None:
    """Lay a writable root over the image's."""
    for folder in (UPPER, WORK, ROOT):
        folder.mkdir()
    _mount("overlay", ROOT, "overlay", f"lowerdir=/,upperdir={UPPER},workdir={WORK}")
    _mount("proc", ROOT / "proc", "proc")
    _mount("dev", ROOT / "dev", "devtmpfs")
    (ROOT / "tmp").chmod(0o1777)
    for name in ACCOUNTS:
        # In a sandbox these are links to files that its node writes.
        known = Path("/etc", name).read_text()
        (ROOT / "etc" / name).unlink(missing_ok=True)
        known += kept_accounts(name, known)
        (ROOT / "etc" / name).write_text(known + system_accounts(name, known))
    own = own_account()
    if own is not None and (home := _folder(own.pw_dir)) is not None:
        # Steps of another user may look into it, as they may where E2B builds.
        home.chmod(0o755)
        if Path("/", SKELETON).is_dir():
            # All that is at home in the base: the sandbox's own home is not filled for root.
            for each in home.iterdir():
                _remove(each)
            shutil.copytree(Path("/", SKELETON), home, symlinks=True, dirs_exist_ok=True)
    accounts = (ROOT / "etc" / "passwd").read_text().splitlines()
    for user in filter(None, map(_account, accounts)):
        known_home = Path(user.pw_dir).parent == HOMES or user == own
        below = _folder(user.pw_dir) if known_home and user.pw_name not in NOT_KEPT else None
        # In an image, all files are root's. Those that a link leads to are no part of the home.
        for each in (below, *below.rglob("*")) if below is not None else ():
            os.chown(each, user.pw_uid, user.pw_gid, follow_symlinks=False)


def _folder(path: str) -> Path | None:
    """Return a folder of the root that is built, or None.

    None if it is missing, a link, below a link, or named by `..`: `/home/..` is all of the root.
    """
    folder = ROOT / path.lstrip("/")
    return folder if ".." not in folder.parts and not _link_to(path) and folder.is_dir() else None


def _link_to(path: str) -> Path | None:
    """Return the first link on the way to a path of the root that is built; None without any.

    A link that begins with a slash leads out of this root, into that of the sandbox.
    """
    way = accumulate(Path(path).parts[1:], Path.joinpath, initial=ROOT)
    return next((each for each in way if each.is_symlink()), None)


def _remove(path: Path) -> None:
    """Remove a folder, a file or a link, but nothing that a link leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def own_account() -> pwd.struct_passwd | None:
    """Return the account of the sandbox's own user."""
    return next((each for each in pwd.getpwall() if each.pw_name not in NOT_KEPT), None)


def _account(line: str) -> pwd.struct_passwd | None:
    """Return a line of passwd(5); None for one that is none."""
    match line.split(":"):
        case [name, secret, uid, gid, about, home, shell] if uid.isdecimal() and gid.isdecimal():
            return pwd.struct_passwd((name, secret, int(uid), int(gid), about, home, shell))
    return None


def kept_accounts(name: str, known: str) -> str:
    """Return the users or groups that steps of the base have made, but for those that are known."""
    return _unknown(Path("/", KEPT_ACCOUNTS, name), known)


def system_accounts(name: str, known: str) -> str:
    """Return Debian's own users or groups, but for those that are known.

    Sandboxes do without them. Package managers do not: apt downloads and reads as `_apt`.
    """
    return _unknown(DEBIANS / f"{name}.master", known)


def _unknown(path: Path, known: str) -> str:
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return ""
    names = {line.partition(":")[0] for line in known.splitlines()}
    return "".join(f"{line}\n" for line in lines if line.partition(":")[0] not in names)


def run(command: dict[str, Any]) -> None:
    """Become a step's command."""
    _trust()
    _enter()
    user = pwd.getpwnam(command["user"])
    _call("prctl", _PR_CAPBSET_DROP, _SYS_ADMIN, 0, 0, 0)
    Path(command["cwd"]).mkdir(parents=True, exist_ok=True)
    os.chdir(command["cwd"])
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    home = {"HOME": user.pw_dir, "USER": user.pw_name} if command["user"] != "root" else {}
    environment = {**os.environ, "HOME": "/root", "USER": "root", **home, **command["env"]}
    # A sandbox has no use for these folders; package managers do, and refuse to work without them.
    environment["PATH"] = ":".join([environment["PATH"], *SYSTEM])
    os.execve(command["command"][0], command["command"], environment)  # noqa: S606


def copy(command: dict[str, Any]) -> None:
    """Write a file that was brought here."""
    content = Path(command["content"]).read_bytes()
    _enter()
    path = Path(command["cwd"], command["path"])
    if command["path"].endswith("/") or path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name the file")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(command["mode"])


def unpack(command: dict[str, Any]) -> None:
    """Write what matches from an archive that was brought here."""
    beside = ROOT / "tmp" / ".copied"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    tar = ["/bin/tar", "--extract", "--no-same-owner", f"--file={command['content']}"]
    subprocess.run([*tar, f"--directory={beside}"], check=True)  # noqa: S603 - ours
    _enter()
    beside = Path("/tmp/.copied")  # noqa: S108 - in the root that is built
    source = command["source"].strip("/")
    found = sorted(beside.glob(source)) if source not in {"", "."} else [beside]
    if not found:
        raise FileNotFoundError(f"nothing is called {command['source']}")
    target = Path(command["cwd"], command["path"])
    below = command["path"].endswith("/") or target.is_dir() or len(found) > 1
    owner = pwd.getpwnam(command["user"].partition(":")[0])
    for each in found:
        is_folder = each.is_dir() and not each.is_symlink()
        to = target / each.name if below and not is_folder else target
        to.parent.mkdir(parents=True, exist_ok=True)
        if is_folder:
            shutil.copytree(each, to, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy2(each, to, follow_symlinks=False)
        _give(each, to, owner, command["mode"])
    shutil.rmtree(beside)


def _give(source: Path, target: Path, owner: pwd.struct_passwd, mode: int | None) -> None:
    """Give the copies of what a folder holds, or of a file, to a user."""
    below = [path.relative_to(source) for path in source.rglob("*")] if source.is_dir() else []
    for each in (target, *(target / path for path in below)):
        os.chown(each, owner.pw_uid, owner.pw_gid, follow_symlinks=False)
        if mode is not None and each.is_file() and not each.is_symlink():
            each.chmod(mode)


def workdir(command: dict[str, Any]) -> None:
    """Make a folder for a user, unless it is there."""
    _enter()
    folder = Path(command["cwd"])
    if not folder.is_dir():
        folder.mkdir(parents=True)
        user = pwd.getpwnam(command["user"])
        os.chown(folder, user.pw_uid, user.pw_gid)


def gather(command: dict[str, Any]) -> None:
    """Make what the steps have changed fit to be packed."""
    _keep_accounts()
    home = _home_of(command["user"], command["home"])
    if (link := _link_to(home)) is not None:
        raise ValueError(
            f"/{link.relative_to(ROOT)} is a link: the home {home} of the template's sandboxes "
            "must be a folder. Leave the folder, and put links into it"
        )
    # Without it, its sandboxes would begin with what the base has at home.
    (ROOT / home.lstrip("/")).mkdir(parents=True, exist_ok=True)
    # All of another user's home, where that is: it was no home in the base, and is none here.
    moved = home != command["home"]
    if command["root"]:
        sys.stdout.write("nobody is root in a sandbox: the last user is of the steps alone\n")
    # Before what is mounted anew is left out: a home may be below that, such as /mnt/data.
    _to_skeleton(home, ROOT if moved else UPPER)
    if lost := sorted(str(each.relative_to(UPPER)) for each in (UPPER / "mnt").glob("*")):
        # What is mounted elsewhere is nobody's surprise; files in /mnt may be meant to stay.
        sys.stdout.write(f"not kept, as builds use /mnt themselves: /{', /'.join(lost[:TOLD])}\n")
    for name in MOUNTED:
        shutil.rmtree(UPPER / name, ignore_errors=True)
    for folder, folders, files in os.walk(UPPER):
        for name in (*folders, *files):
            _mark(Path(folder, name))


def _keep_accounts() -> None:
    _remove(UPPER / KEPT_ACCOUNTS)
    for name in ACCOUNTS:
        if not (made := ROOT / "etc" / name).is_file():
            continue
        lines = (line for line in made.read_text().splitlines() if ":" in line)
        kept = [line for line in lines if line.partition(":")[0] not in NOT_KEPT]
        folder = UPPER / KEPT_ACCOUNTS
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("".join(f"{line}\n" for line in kept))


def _home_of(name: str | None, own_home: str) -> str:
    """Return the home of the user of the template's sandboxes.

    Raises ValueError if the steps have no such user, or its home is where no sandbox has one.
    """
    own = own_account()
    if name is None or (own is not None and own.pw_name == name):
        return own_home
    lines = (ROOT / "etc" / "passwd").read_text().splitlines()
    found = next((each for each in map(_account, lines) if each and each.pw_name == name), None)
    if found is None:
        raise ValueError(f"there is no user {name}: make it in a step, by useradd or adduser")
    if found.pw_uid == 0:
        raise ValueError(f"the user {name} is root, and nobody is root in a sandbox")
    if found.pw_dir != str(HOMES / name):
        raise ValueError(f"the home of the user {name} is {found.pw_dir}: it must be /home/{name}")
    return found.pw_dir


def _to_skeleton(home_path: str, root: Path) -> None:
    """Put what is in the home where each sandbox copies it from, readable for its user."""
    home = root / home_path.lstrip("/")
    if not home.is_dir():
        return
    skeleton = UPPER / SKELETON
    _remove(skeleton)
    skeleton.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(home, skeleton, symlinks=True, ignore=_kindless)
    shutil.rmtree(UPPER / home_path.lstrip("/"), ignore_errors=True)
    if Path("/", SKELETON).is_dir():
        # It began with all that the base has at home. What is missing now was removed.
        (skeleton / OPAQUE).touch()
    if not any(skeleton.iterdir()):
        skeleton.rmdir()
    for folder, folders, files in os.walk(skeleton):
        for path in (Path(folder), *(Path(folder, name) for name in (*folders, *files))):
            mode = path.lstat().st_mode
            if not stat.S_ISLNK(mode):
                owners = (mode >> 6) & 7
                path.chmod(stat.S_IMODE(mode) | (owners & 5) << 3 | (owners & 5))


def _kindless(folder: str, names: list[str]) -> list[str]:
    """Return the names of what is neither a file, a folder nor a link, such as a removal's mark."""
    kinds = {each: Path(folder, each).lstat().st_mode for each in names}
    plain = (stat.S_ISREG, stat.S_ISDIR, stat.S_ISLNK)
    return [each for each, mode in kinds.items() if not any(is_kind(mode) for is_kind in plain)]


def _mark(path: Path) -> None:
    """Mark what was removed in the way of an image's layer (OCI image specification, layer.md)."""
    status = path.lstat()
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
        path.unlink()
        path.with_name(WHITEOUT + path.name).touch()
    elif stat.S_ISDIR(status.st_mode) and _MADE_OPAQUE in os.listxattr(path):
        (path / OPAQUE).touch()
    elif not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode) or path.is_symlink()):
        # A pipe or a socket is of no use to who comes later.
        path.unlink()


def _trust() -> None:
    """Copy the certificate that clients are told to trust into the root."""
    if Path("/", TRUST).is_file():
        (ROOT / TRUST).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path("/", TRUST), ROOT / TRUST)


def _enter() -> None:
    os.chroot(ROOT)
    os.chdir("/")


def _mount(source: str, target: Path, kind: str, options: str = "") -> None:
    _call("mount", source.encode(), bytes(target), kind.encode(), 0, options.encode())


def _call(name: str, *arguments: bytes | int) -> None:
    if ctypes.CDLL(None, use_errno=True)[name](*arguments) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


DOES = {"run": run, "copy": copy, "unpack": unpack, "workdir": workdir, "gather": gather}


def main(command: dict[str, Any]) -> None:
    """Do one thing; if it fails, say why in one line."""
    os.umask(0o022)
    try:
        if command["do"] == "prepare":
            prepare()
        else:
            DOES[command["do"]](command)
    except (OSError, KeyError, ValueError, subprocess.SubprocessError) as error:
        sys.exit(f"{command['do']}: {error}")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
