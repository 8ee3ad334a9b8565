"""SGD, SAM and cheaper methods on the scans of digits of scikit-learn.

Command:   python -m examples.digits        (or `make demo`)
Result:    a table, runs/demo/results.json, a CSV log per run, and
           runs/demo/accuracy_throughput.png
Time:      about 3 minutes on 2 CPU cores

Protocol: 1,000 of the 1,797 scans, enlarged from 8x8 to 16x16 pixels, are the
training set, the other 797 the test set, one split for all runs. Of the
training labels 40% are replaced by random ones, which the base optimizer
memorises. All methods train the same small BatchNormalization network for the
same number of epochs with the same optimizer and learning rates; the seeds 0
and 1 set the initial weights and the order of the data.
"""

import argparse
import json
import pathlib
import platform

import keras
import numpy as np

import keras_esam
from keras_esam.extras import requires

SEEDS = (0, 1)
EPOCHS = 25
BATCH_SIZE = 100
LEARNING_RATE = 0.05
NUM_TRAIN = 1000
LABEL_NOISE = 0.4
RHO = 0.3
METHODS = {
    "SGD": {"rho": 0.0},
    "SAM": {"rho": RHO, "ascent_fraction": 1.0},
    # The default: the perturbation comes from a quarter of each batch.
    "SAM-quarter": {"rho": RHO},
    "ESAM": {  # As in the paper.
        "rho": RHO,
        "beta": 0.6,
        "gamma": 0.5,
        "ascent_fraction": 1.0,
        "granularity": "variable",
    },
}


def load_data():
    """Training and test arrays, shapes `(n, 16, 16, 1)` and `(n,)`."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images[..., None] / 16).astype("float32")
    images = keras.ops.image.resize(images, (16, 16))
    images = keras.ops.convert_to_numpy(images)
    labels = digits.target.astype("int32")
    rng = np.random.default_rng(0)
    order = rng.permutation(len(images))
    train, test = order[:NUM_TRAIN], order[NUM_TRAIN:]
    noisy = labels[train].copy()
    replaced = rng.random(NUM_TRAIN) < LABEL_NOISE
    noisy[replaced] = rng.integers(0, 10, replaced.sum())
    return (images[train], noisy), (images[test], labels[test])


def make_network(width=16):
    """Residual network with three stages of one block each."""
    inputs = keras.Input((16, 16, 1))
    x = inputs
    for filters, strides in ((width, 1), (2 * width, 2), (4 * width, 2)):
        x = shortcut = conv_norm_relu(x, filters, strides)
        x = conv_norm_relu(x, filters) + shortcut
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(10)(x))


def conv_norm_relu(x, filters, strides=1):
    x = keras.layers.Conv2D(
        filters, 3, strides=strides, padding="same", use_bias=False
    )(x)
    # The default momentum, 0.99, is too slow for a few hundred steps.
    return keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))


def train(method, seed, epochs, data, out):
    """Trains one network and returns its results."""
    (x_train, y_train), (x_test, y_test) = data
    keras.utils.set_random_seed(seed)
    model = keras_esam.ESAMModel(make_network(), seed=seed, **METHODS[method])
    steps = epochs * (NUM_TRAIN // BATCH_SIZE)
    schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    model.compile(
        keras.optimizers.SGD(schedule, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(
        x_train,
        y_train,
        batch_size=BATCH_SIZE,
        epochs=epochs,
        verbose=0,
        callbacks=[
            keras_esam.callbacks.ThroughputLogger(),
            keras.callbacks.CSVLogger(out / f"{method}_seed{seed}.csv"),
        ],
    ).history
    scores = model.evaluate(x_test, y_test, verbose=0, return_dict=True)
    print(f"{method}, seed {seed}: {scores['accuracy']:.2%}", flush=True)
    return {
        "method": method,
        "seed": seed,
        "test_accuracy": 100 * scores["accuracy"],
        "train_accuracy": 100 * history["accuracy"][-1],
        "images_per_second": float(np.nanmedian(history["images_per_second"])),
        # Rise of the training loss over the distance RHO along its gradient.
        "sharpness": keras_esam.analysis.sharpness(
            model, (x_train, y_train), rho=RHO
        ),
    }


def summarise(runs):
    """Means and deviations over the seeds, one row for each method."""
    import pandas as pd

    groups = pd.DataFrame(runs).groupby("method", sort=False)
    scores = groups[["test_accuracy", "train_accuracy", "sharpness"]]
    deviations = scores.std().fillna(0.0).add_suffix("_std")
    summary = scores.mean().join(deviations)
    rates = groups["images_per_second"].median()
    summary["images_per_second"] = rates
    summary["speed_relative_to_sam"] = rates / rates["SAM"]
    return summary


def print_table(summary, num_seeds):
    table = summary[[]].copy()
    table["test accuracy"] = [
        f"{row.test_accuracy:.2f} +- {row.test_accuracy_std:.2f}%"
        for row in summary.itertuples()
    ]
    table["train accuracy"] = summary["train_accuracy"].map("{:.2f}%".format)
    table["images/s"] = summary["images_per_second"].map("{:.0f}".format)
    speeds = summary["speed_relative_to_sam"]
    table["speed/SAM"] = speeds.map("{:.2f}x".format)
    table["sharpness"] = [
        f"{row.sharpness:.3f} +- {row.sharpness_std:.3f}"
        for row in summary.itertuples()
    ]
    print(
        f"\n{table.to_string(index_names=False)}\n\n"
        f"Mean and standard deviation over {num_seeds} seeds. "
        f"{LABEL_NOISE:.0%} of the training labels are random;\n"
        "the test labels are not. Sharpness is the rise of the training loss "
        f"at distance {RHO} from\nthe final weights, along the gradient."
    )


def draw(runs, summary, path):
    """Accuracy against throughput, as in the paper's Figure 1."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    x, y = "images_per_second", "test_accuracy"
    for index, (method, row) in enumerate(summary.iterrows()):
        color = f"C{index}"
        points = [(run[x], run[y]) for run in runs if run["method"] == method]
        axes.scatter(*np.transpose(points), s=18, alpha=0.4, color=color)
        style = {"fmt": "o", "markersize": 9, "capsize": 4, "color": color}
        axes.errorbar(row[x], row[y], row[f"{y}_std"], label=method, **style)
    axes.set_xlabel("training speed in images per second")
    axes.set_ylabel("test accuracy in %")
    axes.set_title(
        f"Digits, {NUM_TRAIN} training samples, {LABEL_NOISE:.0%} label noise\n"
        f"mean and standard deviation of {len(runs) // len(summary)} seeds"
    )
    axes.set_xlim(left=0)
    axes.margins(y=0.15)
    axes.grid(alpha=0.3)
    axes.legend(loc="best")
    figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    option = parser.add_argument
    option("--epochs", type=int, default=EPOCHS, help="of each training")
    option("--seeds", type=int, nargs="+", default=SEEDS, help="one run each")
    option("--out", type=pathlib.Path, default="runs/demo", help="a folder")
    arguments = parser.parse_args()
    with requires("examples"):  # Fails now, not after the training.
        import matplotlib.figure  # noqa: F401
        import pandas  # noqa: F401
        import sklearn.datasets  # noqa: F401
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)

    data = load_data()
    # Seeds in the outer loop, so that a slow minute hits all methods.
    runs = [
        train(method, seed, arguments.epochs, data, out)
        for seed in arguments.seeds
        for method in METHODS
    ]
    summary = summarise(runs)
    results = {
        "protocol": __doc__.split("Protocol: ")[1].strip(),
        "epochs": arguments.epochs,
        "methods": METHODS,
        "machine": platform.platform(),
        "versions": {
            "keras_esam": keras_esam.__version__,
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
        },
        "summary": summary.to_dict("index"),
        "runs": runs,
    }
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    draw(runs, summary, out / "accuracy_throughput.png")
    print_table(summary, len(arguments.seeds))
    print(
        f"\nResults:  {out / 'results.json'}\nLogs:     {out}/*.csv\n"
        f"Picture:  {out / 'accuracy_throughput.png'}"
    )


if __name__ == "__main__":
    main()
