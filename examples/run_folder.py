"""The folder of a training: one writer, fixed settings, whole files."""

import contextlib
import json
import os
import pathlib
from collections.abc import Callable
from collections.abc import Iterator

from keras_esam.extras import requires


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Makes the folder and locks it against other processes.

    Raises:
        RuntimeError: If another process has locked it.
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
            "`--out` must be a new folder, or belong to a run with the same "
            f"settings, which then resumes: choose another. {folder} was "
            f"trained with {old}. Received: {new}"
        )


def save_whole(save: Callable, path: pathlib.Path):
    """Calls `save`, and writes its file atomically.

    Processes that write the same file do not disturb each other.
    """
    unfinished = path.with_name(f"unfinished.{os.getpid()}.{path.name}")
    save(unfinished)
    unfinished.replace(path)


def is_unfinished(path: pathlib.Path) -> bool:
    """Whether `save_whole` began to write a file and has not finished."""
    return path.name.startswith("unfinished.")


def write_text(text: str, path: pathlib.Path):
    save_whole(lambda path: path.write_text(text), path)


def write_json(content, path: pathlib.Path):
    """Writes JSON, with `null` for numbers that are not finite."""
    content = json.loads(json.dumps(content), parse_constant=lambda _: None)
    write_text(json.dumps(content, indent=1) + "\n", path)


def read_json(path: pathlib.Path):
    """The content of a JSON file, `{}` if it is missing."""
    return json.loads(path.read_text()) if path.exists() else {}
