"""The example fits on a backend, in a process of their own.

Command:   KERAS_BACKEND=jax python -m tests.examples.backend_run FOLDER
"""

import pathlib
import sys

import pytest

from examples import fitting
from examples import train_cifar
from examples import train_imagenet
from keras_esam import recipes
from tests.data.files import encoded
from tests.data.files import photograph
from tests.data.files import write_cifar
from tests.data.files import write_tree
from tests.examples import runs


def train_and_go_on(script, options, folder, patch):
    """A resumed run ends as the whole one."""
    options += " --epochs 2"
    whole = runs.run(script, options, folder / "whole", patch)
    assert whole["history"][1]["loss"] != whole["history"][0]["loss"]
    save = fitting.BestWeights.on_epoch_end

    def cut_after_one(self, epoch, logs=None):
        save(self, epoch, logs)
        raise runs.Cut

    with patch.context() as cut:
        cut.setattr(fitting.BestWeights, "on_epoch_end", cut_after_one)
        with pytest.raises(runs.Cut):
            runs.run(script, options, folder / "cut", patch)
    resumed = runs.run(script, options, folder / "cut", patch)
    runs.assert_same_history(resumed, whole)
    assert (folder / "cut" / "last.keras").exists()


def main():
    folder = pathlib.Path(sys.argv[1])
    patch = pytest.MonkeyPatch()
    for network in ("resnet18", "resnet50"):
        patch.setitem(recipes.MAKERS, network, runs.make_small_network)
    for script in (train_cifar, train_imagenet):
        for strategy in ("mirrored", "multiworker"):
            with pytest.raises(SystemExit):
                runs.run(script, f"--strategy {strategy}", folder, patch)

    write_cifar(folder / "tfds", num_train=20, num_test=20)
    options = "--recipe cifar10/resnet18/sgd --batch-size 10"
    options += f" --data-dir {folder / 'tfds'}"
    train_and_go_on(train_cifar, options, folder / "cifar", patch)

    photographs = {
        f"{split}/{name}/{i}.JPEG": encoded(photograph())
        for split in ("train", "val")
        for name in ("ant", "bee")
        for i in range(2)
    }
    write_tree(folder / "photographs", photographs)
    options = f"--folder {folder / 'photographs'} --image-size 32"
    options += " --recipe imagenet/resnet50/sam --batch-size 2"
    train_and_go_on(train_imagenet, options, folder / "imagenet", patch)


if __name__ == "__main__":
    main()
