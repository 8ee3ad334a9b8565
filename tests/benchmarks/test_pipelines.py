import json

import numpy as np
import pytest

from benchmarks import pipelines
from tests.backends import tensorflow_only


def test_ratios_by_hand():
    """Seconds per image, by CPU and wall time, of three rounds."""
    training = [(0.2, 0.1), (0.2, 0.1), (0.4, 0.2)]
    alone = [(0.01, 0.01), (0.01, 0.02), (0.02, 0.01)]
    samples = {"a": alone, pipelines.RESNET18: training}
    (rows,) = pipelines.tables({"seconds_per_image": samples}).values()
    assert rows.loc["a"].to_list() == [
        "100 (75 to 100)",
        "10000 (10000 to 15000)",
        "10 (8 to 15)",
        "20 (20 to 20)",
    ]


@tensorflow_only
@pytest.mark.slow
def test_run_writes_what_its_report_reads(tmp_path, monkeypatch, capsys):
    options = "--width 1 --rounds 2 --steps 2 --batch-size 4"
    monkeypatch.setattr(pipelines, "timed_epochs", lambda *_: [0.002, 0.001])
    pipelines.main([*options.split(), "--out", str(tmp_path)])
    table = capsys.readouterr().out.split("\n\n", 1)[1]
    assert "| digits, test | 1000 (1000 to 1000) |" in table
    written = json.loads((tmp_path / "results.json").read_text())
    training = written["seconds_per_image"][pipelines.RESNET18]
    assert len(training) == 2 and training[0][0] > 0
    pipelines.main(["--report", str(tmp_path / "results.json")])
    assert capsys.readouterr().out.strip() == table.strip()


def test_epochs_are_whole(monkeypatch):
    """By a clock that goes on a second with each image."""
    now = [0.0]

    def batches():
        for size in (10, 7):
            now[0] += size
            yield [0] * size, None

    class Epoch:
        __iter__ = staticmethod(batches)

    monkeypatch.setattr(pipelines, "clocks", lambda: np.array(now * 2))
    for seconds, images in ((0, 17), (17, 17), (18, 34)):
        now[0] = 0.0
        assert pipelines.timed_epochs(Epoch(), seconds) == [1.0, 1.0]
        assert now[0] == images
