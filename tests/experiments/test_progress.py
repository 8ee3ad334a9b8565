"""How far the work is."""

import pytest

from keras_esam.experiments import progress


@pytest.fixture
def clock(monkeypatch):
    """A list whose one entry is the time in seconds."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_time_left_follows_the_amount_of_work(clock, capsys):
    for _ in progress.announced({"a": 0, "b": 10, "c": 20}):
        clock[0] += 600
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "a (1 of 3)",
        "b (2 of 3)",
        "c (3 of 3, about 40 min left)",
    ]


def test_bar_of_a_resumed_training_counts_its_own_epochs(capsys):
    bar = progress.EpochBar(done=8)
    bar.set_params({"epochs": 10})
    bar.on_train_begin()
    bar.on_epoch_end(8, {"loss": 1.0})
    bar.on_epoch_end(9, {"loss": 0.5})
    text = capsys.readouterr().out
    assert "8 of 10 epochs are done" in text
    assert "1/2" in text and "2/2" in text and "9/" not in text
