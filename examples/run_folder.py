"""The folder of a training: one writer, one set of settings, whole files."""

import contextlib
import json
import pathlib
from collections.abc import Callable
from collections.abc import Iterator

from keras_esam.extras import requires


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Context in which no other process has the same folder locked.

    Args:
        folder: Path, which is made if there is none.

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
    """Raises a ValueError unless both settings, of JSON values, are equal.

    Args:
        settings: Dict, those of the run that is to start.
        before: Dict, those of the run in the folder.
        folder: Path.
    """
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
    """Calls `save` so that its file is at `path` as a whole or not at all."""
    unfinished = path.with_name(f"unfinished.{path.name}")
    save(unfinished)
    unfinished.replace(path)


def write_json(content, path: pathlib.Path):
    """Writes values without NaN, which JSON does not have."""
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    save_whole(lambda path: path.write_text(text), path)


def read_json(path: pathlib.Path):
    """What a file holds, `{}` if there is none."""
    return json.loads(path.read_text()) if path.exists() else {}
