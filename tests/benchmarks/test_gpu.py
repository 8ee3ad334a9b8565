"""What a profile says, on a profile by hand."""

from types import SimpleNamespace

import pytest

from benchmarks import gpu


def profile(**lines):
    """A profile of one device: name of a line to begin and length, in ns."""
    lines = [
        SimpleNamespace(
            name=name,
            events=[
                SimpleNamespace(start_ns=start, duration_ns=duration)
                for start, duration in events
            ],
        )
        for name, events in lines.items()
    ]
    device = SimpleNamespace(name="/device:GPU:0", lines=lines)
    host = SimpleNamespace(name="/host:CPU", lines=lines)
    return SimpleNamespace(planes=[host, device])


def test_kernels_of_two_streams_and_the_gaps_between_them():
    data = profile(
        # 3 us, a gap of 2 us, then 4 us of which another stream has a part.
        Stream1=[(0, 3_000), (5_000, 2_000)],
        # Inside, and across the end of the other stream's; 100 us later one.
        Stream2=[(1_000, 1_000), (6_000, 3_000), (109_000, 1_000)],
        Steps=[(0, 500_000)],
    )
    intervals = gpu.device_intervals(data)
    assert len(intervals) == 5
    busy, gaps = gpu.union(intervals)
    assert busy == pytest.approx(8e-6)
    assert gaps == pytest.approx([2e-6, 100e-6])


def test_tables_show_each_method_and_batch_size():
    rows = [{"batch size": 128, "method": "SAM", "step, ms": 5.0}]
    assert gpu.tables({"rows": rows})[""].loc["SAM", "step, ms"] == 5
