"""What can go wrong with a disk, said in one way, and files that are whole or not there.

A run of days ends on a full disk, a mount that turned read-only or a used-up quota more often than on a bug, and each
library words that differently (an OSError, a Rust error without a number, a traceback in a notebook's cell). Here each
becomes one message that names the folder, how much is free, and what to do. What a killed run leaves half-written is
recognised by its name and removed by the next one.
"""

import contextlib
import errno
import os
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

_ELSEWHERE = "or set GRACELIB_RUNS (GRACELIB_FIGURES for figures) to a folder on another disk"
#: What an error number says, and what to do about it.
_WHAT = {
    errno.ENOSPC: ("the disk is full", f"make space there, {_ELSEWHERE}"),
    errno.EDQUOT: ("the disk quota is used up", f"make space there, {_ELSEWHERE}"),
    errno.EFBIG: ("a file would be larger than this process may write", "raise the limit (`ulimit -f unlimited`)"),
    errno.EROFS: ("the file system is read-only", f"mount it writable, {_ELSEWHERE}"),
    errno.EACCES: ("this user may not write there", f"change its permissions, {_ELSEWHERE}"),
    errno.EPERM: ("this user may not write there", f"change its permissions or attributes, {_ELSEWHERE}"),
    errno.EEXIST: ("a file stands in place of a folder", f"move it away, {_ELSEWHERE}"),
    errno.ENOTDIR: ("a file stands in place of a folder", f"move it away, {_ELSEWHERE}"),
}
#: These may as well come from reading somebody's input: they are ours only below the folder that is written to.
_ANYWHERE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_UNITS = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))
_PROBE = 1 << 14  # bytes: a folder that cannot take so much cannot take a result
_KEY = "[0-9a-f]" * 20  # as `store.digest` makes it
_PART = re.compile(r"\..+\.(\d+)-[0-9a-f]{8}\.part(\.\w+)?")


class DiskError(OSError):
    """A folder that cannot be written to: one line with the folder, the cause, what is free and the remedy."""


@contextlib.contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Raises DiskError instead of whatever a full, read-only or forbidden disk made of the work on `folder`."""
    try:
        yield
    except Exception as error:
        if (number := _number(error, folder)) is None:
            raise
        raise DiskError(_message(number, folder)) from error


def in_words(error: Exception) -> str:
    """What to tell a user of an error that nobody explained on its way up: of a disk what `explained` says."""
    if (number := _number(error)) is None:
        return str(error)
    name = getattr(error, "filename", None)
    return _message(number, Path(os.fsdecode(name)).parent if isinstance(name, str | bytes) else None)


def check_writable(folder: Path) -> None:
    """Write a little where `folder` is or will be. Raises DiskError: now, and not after the first hour."""
    there = _nearest(folder)
    with explained(there), tempfile.TemporaryFile(dir=there) as probe:
        probe.write(bytes(_PROBE))


def _nearest(folder: Path) -> Path:
    """The folder, or the innermost above it that is there."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def _number(error: BaseException | None, folder: Path | None = None) -> int | None:
    """The disk's error number behind an error, or None if it has nothing to do with a disk."""
    while error is not None and not isinstance(error, DiskError):
        number = error.errno if isinstance(error, OSError) else None
        if number is None and (said := re.search(r"\(os error (\d+)\)", str(error))):  # safetensors, tokenizers
            number = int(said[1])
        names = [name for name in (getattr(error, "filename", None), getattr(error, "filename2", None)) if name]
        ours = folder and any(
            Path(os.path.abspath(os.fsdecode(name))).is_relative_to(os.path.abspath(folder)) for name in names
        )
        if number in _ANYWHERE or (number in _WHAT and ours):
            return number
        error = error.__cause__
    return None


def _message(number: int, folder: Path | None) -> str:
    what, remedy = _WHAT[number]
    if folder:
        what = f"{folder}: {what} ({size_of(shutil.disk_usage(_nearest(folder)).free)} free)"
    return f"{what}; {remedy}, then run the same command again: what was finished is kept"


def size_of(n_bytes: int) -> str:
    """Bytes in words: "1.5 GiB"."""
    unit, size = next((u for u in _UNITS if n_bytes >= u[1]), ("bytes", 1))
    return f"{n_bytes / size:.1f} {unit}" if size > 1 else f"{n_bytes} {unit}"


# --- whole files ---


def part_of(path: Path) -> Path:
    """A name beside `path` under which it is written: hidden, nobody else's, and known to `sweep` as half-written."""
    return path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}.part{path.suffix}")


def flush(path: Path) -> None:
    """Wait until a file (or a folder's list of files) is on the disk: a rename may get there before the content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> None:
    """Remove the half-written files (`part_of`) that dead processes left below `folder`."""
    for path in folder.rglob(".*.part*"):
        if (found := _PART.fullmatch(path.name)) and ended(int(found[1])):
            path.unlink(missing_ok=True)


def sweep_folders(root: Path) -> None:
    """Remove the half-written result folders root/<stage>/<key>.part whose lock nobody holds; `root` may hold others' files."""
    for part in root.glob(f"*/{_KEY}.part"):
        with contextlib.suppress(Timeout), FileLock(part.with_suffix(".lock")).acquire(timeout=0):
            shutil.rmtree(part, ignore_errors=True)  # another run may have come first


def ended(pid: int) -> bool:
    """Whether no process of that number does anything any more: a killed one keeps its number until somebody asks for its
    exit status, and in a container there may be nobody to."""
    import psutil  # 20 ms, which most commands need not wait for

    try:
        return psutil.Process(pid).status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False  # somebody else's


def alone(lock: Path, busy: str) -> contextlib.AbstractContextManager:
    """Take a lock for a `with`; if another process has it, say `busy` on stderr and wait. A dead process holds none."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    try:
        return held.acquire(timeout=0)
    except Timeout:
        print(f"{busy}; waiting for it", file=sys.stderr)
        return held.acquire()
