"""Loss landscapes of trained networks, computed once and kept."""

import json

import keras

from keras_esam import analysis
from keras_esam.experiments.progress import announced
from keras_esam.experiments.runs import Run
from keras_esam.experiments.runs import Runner
from keras_esam.experiments.runs import write_json

RADIUS = 1.0


def landscapes_of(runner: Runner, runs: list[Run]) -> dict[str, dict]:
    """Loss landscapes of runs that are finished, on the probe batch.

    Each is kept in the run's folder.

    Args:
        runner: `Runner`.
        runs: List of runs.

    Returns:
        Dict of label to a dict for JSON: `coordinates`, a list of `num_points`
        floats, the filter norms along both directions; `mean_losses`,
        `num_points` such lists, means over the draws; and `settings`.
    """
    scale = runner.scale
    settings = {
        "radius": RADIUS,
        "num_points": scale.num_points,
        "num_draws": scale.num_draws,
    }
    paths = {run: runner.folder_of(run) / "landscape.json" for run in runs}
    missing = {
        f"landscape of {run.label}": run
        for run, path in paths.items()
        if not path.exists()
        or json.loads(path.read_text())["settings"] != settings
    }
    for name in announced(dict.fromkeys(missing, 1)):
        run = missing[name]
        landscape = analysis.loss_landscape(
            _compiled_network(runner, run),
            runner.images.probe(runner.recipe(run)),
            **settings,
            verbose=1,
        )
        kept = {
            "settings": settings,
            "coordinates": landscape.coordinates.tolist(),
            "mean_losses": landscape.mean_losses.round(4).tolist(),
        }
        write_json(kept, paths[run])
    return {run.label: json.loads(paths[run].read_text()) for run in runs}


def _compiled_network(runner, run):
    network = runner.trained_network(run)
    network.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return network
