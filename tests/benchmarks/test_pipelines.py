import json
import sys

import pytest

from benchmarks import pipelines
from tests.backends import tensorflow_only


def test_ratios_by_hand():
    """Seconds per image, by CPU and wall time, of three rounds."""
    training = [(0.2, 0.1), (0.2, 0.1), (0.4, 0.2)]
    alone = [(0.01, 0.01), (0.01, 0.02), (0.02, 0.01)]
    rows = pipelines.summarise({"a": alone, "b": training}, training)
    assert rows["a"]["images_per_second"] == pytest.approx([75, 100, 100])
    assert rows["a"]["cpu_us_per_image"][1] == pytest.approx(1e4)
    ratios = rows["a"]["times_the_training"]
    assert ratios["cpu"] == pytest.approx([20, 20, 20])
    assert ratios["wall"] == pytest.approx([7.5, 10, 15])
    assert rows["b"]["times_the_training"]["wall"] == pytest.approx([1, 1, 1])
    assert "| a | 100 (75 to 100) | 10000 " in pipelines.markdown(rows)


@tensorflow_only
def test_run_writes_its_results(tmp_path, monkeypatch):
    options = "--width 1 --rounds 2 --steps 2 --batch-size 4 --seconds 0"
    command = ["pipelines", *options.split(), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.setattr(pipelines, "timed_epochs", lambda *_: [0.002, 0.001])
    pipelines.main()
    results = json.loads((tmp_path / "results.json").read_text())
    rows = results["rows"]
    assert rows["digits, test"]["images_per_second"] == [1000] * 3
    assert rows[pipelines.RESNET18]["images_per_second"][0] > 0
    assert len(results["seconds_per_image"][pipelines.RESNET18]) == 2
    assert "| digits, test | 1000" in (tmp_path / "results.md").read_text()


def test_epochs_are_whole(monkeypatch):
    """By a clock that goes on a second with each image."""
    now = [0.0]

    class Clock:
        process_time = perf_counter = staticmethod(lambda: now[0])

    def batches():
        for size in (10, 7):
            now[0] += size
            yield [0] * size, None

    class Epoch:
        __iter__ = staticmethod(batches)

    monkeypatch.setattr(pipelines, "time", Clock)
    for seconds, images in ((0, 17), (17, 17), (18, 34)):
        now[0] = 0.0
        assert pipelines.timed_epochs(Epoch(), seconds) == [1.0, 1.0]
        assert now[0] == images
