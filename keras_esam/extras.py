"""Optional packages, installed with the extras of this package."""

import contextlib


@contextlib.contextmanager
def requires(extra: str):
    """Context of imports that need an extra of `keras-esam`.

    Raises an `ImportError` that says how to install what is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or str(error)).split(".")[0]
        # Several other extras import it without installing it.
        extra = package if package == "tensorflow" else extra
        raise ImportError(
            f"This needs the package `{package}`, which is not installed: "
            f'`pip install "keras-esam[{extra}]"`.',
            name=error.name,
        ) from error
