"""Folders that one process at a time writes to."""

import contextlib
import pathlib
from collections.abc import Iterator

try:
    import fcntl
except ImportError:  # Windows has none, and no folder is locked.
    fcntl = None


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Context in which no other process has the same folder locked.

    The lock is on the file `lock` there, and ends with the process.

    Args:
        folder: Path, which is made if there is none.

    Raises:
        RuntimeError: If it is locked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "a") as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RuntimeError(
                "Another process works here, and both would write to the same "
                "files. Wait for it, end it, or choose another folder with "
                f"--out. Received: {folder}"
            ) from error
        except OSError:
            pass  # A file system without locks.
        yield
