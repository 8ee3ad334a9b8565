"""The folder of a training: one writer, one set of settings, whole files."""

import contextlib
import json
import pathlib
from collections.abc import Callable
from collections.abc import Iterator

from keras_esam.extras import requires


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Makes the folder, and keeps other processes from locking it.

    Raises:
        RuntimeError: If it is locked.
    """
    with requires("examples"):
        import filelock
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = filelock.FileLock(folder / "lock").acquire(timeout=0)
    except filelock.Timeout as error:
        raise RuntimeError(
            "Another process works here, and both would write to the same "
            "files. Wait for it, end it, or choose another folder with --out. "
            f"Received: {folder}"
        ) from error
    with lock:
        yield


def check_settings(settings: dict, before: dict, folder: pathlib.Path):
    """Raises a ValueError unless a run has the settings of its folder."""
    names = dict.fromkeys((*settings, *before))
    names = [name for name in names if settings.get(name) != before.get(name)]
    if names:
        old, new = (
            ", ".join(f"{name}={values.get(name)!r:.60}" for name in names)
            for values in (before, settings)
        )
        raise ValueError(
            "`--out` must be a new folder, or that of a run with the same "
            f"settings, which then resumes: choose another. {folder} was "
            f"trained with {old}. Received: {new}"
        )


def save_whole(save: Callable, path: pathlib.Path):
    """Calls `save` so that its file is written atomically."""
    unfinished = path.with_name(f"unfinished.{path.name}")
    save(unfinished)
    unfinished.replace(path)


def write_text(text: str, path: pathlib.Path):
    save_whole(lambda path: path.write_text(text), path)


def write_json(content, path: pathlib.Path):
    """Writes JSON, numbers that are not finite as `null`."""
    content = json.loads(json.dumps(content), parse_constant=lambda _: None)
    write_text(json.dumps(content, indent=1) + "\n", path)


def read_json(path: pathlib.Path):
    """What a file holds, `{}` if there is none."""
    return json.loads(path.read_text()) if path.exists() else {}
