"""The ESAM paper's tables and figures, `python -m benchmarks.paper`."""
