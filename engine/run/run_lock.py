"""One run at a time in a folder."""

import errno
import logging
import os
import socket
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from engine.run.config import ConfigError

log = logging.getLogger(__name__)

try:
    import fcntl
except ImportError:  # POSIX alone has it
    fcntl = None  # type: ignore[assignment]

HELD = (errno.EAGAIN, errno.EACCES)
UNSUPPORTED = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)


class RunLock:
    """Context that holds a lock on a folder. The system releases it when the process ends, however that is.

    It is a record lock: it works over NFS, and unlike one of flock it is not inherited by loader workers, which
    outlive a killed parent by seconds and would keep the folder locked. Where the file system, or the system, has no
    locks, one warning says so.

    Args:
        folder: made if missing, and removed again if nothing was written there.
        choice: what names another folder, for the message.
    Raises:
        ConfigError: on entering, another process holds it.
    """

    def __init__(self, folder: Path, choice: str = "run.name") -> None:
        self._folder, self._path, self._choice = folder, folder / ".lock", choice
        self._descriptor: int | None = None

    def __enter__(self) -> "RunLock":
        if fcntl is None:
            log.warning("%s: no locks on this system; see that no other run writes here", self._folder)
            return self
        while self._descriptor is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                self._lock(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            if _is_open(descriptor, self._path):
                self._descriptor = descriptor
            else:  # its holder has just ended and removed it
                os.close(descriptor)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._descriptor is None:
            return
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = None
        with suppress(OSError):  # a run is in it
            self._folder.rmdir()

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in HELD:
                holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
                raise ConfigError(
                    f"{self._folder}: {holder} is running in this folder; wait for its end, stop it, or choose "
                    f"another {self._choice}"
                ) from None
            if error.errno not in UNSUPPORTED:
                raise
            reason = error.strerror
            log.warning(
                "%s: no locks on this file system (%s); see that no other run writes here", self._folder, reason
            )


def _is_open(descriptor: int, path: Path) -> bool:
    """Whether the descriptor is that of the file which has this name now."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
