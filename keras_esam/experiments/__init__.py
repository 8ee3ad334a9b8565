"""The ESAM paper's tables and figures, `python -m keras_esam.experiments`."""
