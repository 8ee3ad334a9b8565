"""Trains a network on ImageNet, or on class folders, by a recipe of the paper.

Command:   python -m examples.train_imagenet --recipe imagenet/resnet50/esam
Result:    runs/imagenet/resnet50/esam with result.json, the weights with
           the best validation accuracy (best.weights.h5), the last network
           (last.keras), a backup and logs for TensorBoard. Accuracies are on
           the validation part: `test_accuracy` belongs to the last epoch,
           `best_test_accuracy` to the epoch with the best accuracy, so it is
           too high for a comparison
Hardware:  GPUs; at this scale it has not been run. Small, on two busy CPU
           cores, 800 images of ten classes for training and 200 others for
           validation: --folder FOLDER --image-size 64 --batch-size 20
           --learning-rate 0.002 --granularity depth --epochs 6 took 8 minutes,
           two of them to compile, and gave 20.5% (seed 0; chance is 10%).
           --width 16 --blocks 1 1 1 1 trains a smaller network of the same
           kind. On the CPU the number of kept samples, ceil(gamma *
           batch_size), should be even, see docs/guides/choose.md
Data:      `imagenet2012` as tensorflow-datasets has prepared it; --data-dir or
           the environment variable TFDS_DATA_DIR say where it is. Or your own
           images, FOLDER/train/CLASS/*.JPEG and FOLDER/val/CLASS/*.JPEG, with
           --folder FOLDER

An interrupted run resumes, and several workers train one network, as with
`examples.train_cifar`.
"""

import pathlib

import keras_esam
from examples import fitting
from keras_esam import data
from keras_esam import models
from keras_esam.data import jpeg
from keras_esam.data.class_folders import SPLITS
from keras_esam.data.class_folders import class_folders
from keras_esam.extras import requires

with requires("tensorflow"):
    import tensorflow as tf


def parse_arguments():
    parser = fitting.make_parser(__doc__, "imagenet/resnet50/esam")
    option = parser.add_argument
    option("--folder", help="class folders instead of ImageNet")
    option("--image-size", type=int, default=224, help="(default: 224)")
    small = "of a `bottleneck_resnet` instead of the recipe's network"
    option("--width", type=int, help=f"{small} (default: 64)")
    option("--blocks", type=int, nargs=4, metavar="N", help=small)
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    recipe = fitting.make_recipe(arguments)
    out = arguments.out or pathlib.Path("runs", recipe.name)
    scope = fitting.start(arguments)

    # The data of an epoch depends only on the seed and the epoch, so a resumed
    # run sees the same batches.
    counter = keras_esam.callbacks.EpochCounter()
    source = {
        "data_dir": arguments.data_dir,
        "folder": arguments.folder,
        "image_size": arguments.image_size,
        **recipe.pipeline,
    }
    train = data.imagenet(
        "train",
        num_samples=arguments.subset,
        seed=arguments.seed,
        epoch=counter.epoch,
        **source,
    )
    validation = data.imagenet("val", **source)

    sizes = {"input_shape": (arguments.image_size, arguments.image_size, 3)}
    classes = None
    if arguments.folder is not None:
        classes = data.class_names(arguments.folder)
        sizes["num_classes"] = len(classes)
    small = {"width": arguments.width, "blocks": arguments.blocks}
    small = {name: size for name, size in small.items() if size is not None}
    num_steps = recipe.epochs * len(train)
    with scope:
        if small:
            network = models.bottleneck_resnet(**sizes, **small)
        else:
            network = recipe.make_network(**sizes)
        model = fitting.make_model(network, recipe, num_steps, arguments.seed)
    try:
        fitting.fit(
            *(model, train, validation, counter, recipe, arguments, out),
            classes=classes,
        )
    except tf.errors.InvalidArgumentError as error:
        if arguments.folder is not None:
            check_photographs(arguments.folder, error)
        raise


def check_photographs(folder, error):
    """Names the image file that caused the error of a training, if any."""
    print("Looking for a file that cannot be decoded", flush=True)
    for split in SPLITS:
        path = jpeg.find_broken(class_folders(folder, split)[0])
        if path is not None:
            raise ValueError(
                "The images in `--folder` must be whole: replace this one "
                f"or delete it. Received: {path}"
            ) from error


if __name__ == "__main__":
    main()
