"""How far the work is, and how long it still takes."""

import time
from collections.abc import Iterator

import keras


def announced(work: dict[str, float]) -> Iterator[str]:
    """Names of the parts of some work, each printed with the time left.

    Args:
        work: Dict of name to amount, in any unit.
    """
    total, done = sum(work.values()), 0
    start = time.monotonic()
    for index, (name, amount) in enumerate(work.items(), start=1):
        left = ""
        if done:
            seconds = (time.monotonic() - start) * (total - done) / done
            left = f", about {seconds / 60:.0f} min left"
        print(f"{name} ({index} of {len(work)}{left})", flush=True)
        yield name
        done += amount


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
