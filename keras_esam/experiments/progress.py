"""How far the work is, and how long it still takes."""

import time
from collections.abc import Iterable
from collections.abc import Iterator

import keras


def announced(work: dict[str, float]) -> Iterator[str]:
    """Names of the parts of some work, each printed with the time left.

    Args:
        work: Dict of name to amount, in any unit.
    """
    time_left = _TimeLeft(sum(work.values()))
    for index, (name, amount) in enumerate(work.items(), start=1):
        print(f"{name} ({index} of {len(work)}{time_left})")
        yield name
        time_left.done += amount


def report(work: dict[str, float], finished: Iterable[str]):
    """Prints the parts of some work as they end, with the time left.

    Args:
        work: Dict of name to amount, in any unit.
        finished: Iterable of the names, each when it has ended.
    """
    time_left = _TimeLeft(sum(work.values()))
    for index, name in enumerate(finished, start=1):
        time_left.done += work[name]
        print(f"{name} is done ({index} of {len(work)}{time_left})")


class _TimeLeft:
    """What is printed of it, once something is done."""

    def __init__(self, total):
        self.done = 0
        self._total = total
        self._start = time.monotonic()

    def __str__(self):
        if not self.done:
            return ""
        passed = time.monotonic() - self._start
        seconds = passed * (self._total - self.done) / self.done
        return f", about {seconds / 60:.0f} min left"


class EpochBar(keras.callbacks.Callback):
    """Progress bar over the epochs that are left.

    Args:
        done: Integer, number of epochs of earlier processes.
    """

    def __init__(self, done: int):
        super().__init__()
        self._done = done

    def on_train_begin(self, logs=None):
        epochs = self.params["epochs"]
        if self._done:
            print(f"{self._done} of {epochs} epochs are done")
        self._bar = keras.utils.Progbar(
            epochs - self._done, unit_name="epoch", interval=5.0
        )

    def on_epoch_end(self, epoch, logs=None):
        self._bar.update(epoch + 1 - self._done, [("loss", logs["loss"])])
