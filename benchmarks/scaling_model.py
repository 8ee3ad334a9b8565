"""The step time on 8 to 1,024 devices, on paper.

A model, and no measurement. It assumes

- weak scaling: each device has the same batch at any number of devices, and
  computes for `units / 3` times as long as in a step of SGD, by the units of
  the cost model: SGD and one-step ESAM 3, SAM 6, ESAM `"depth"` 4.3;
- all-reduces in a ring of all `N` devices: each sends `2 (N - 1) / N` times the
  bytes at the bandwidth of the slowest link, in `2 (N - 1)` messages of a
  latency each. Trees, and rings within rings, have a lower latency for large
  `N`;
- no stragglers, no waiting for data, all links free;
- without overlap: communication waits for the gradient as a whole and all else
  for the communication, as in the traced graph of `MirroredStrategy`, which has
  one all-reduce for all tensors;
- with overlap, the best case: a gradient's all-reduce hides behind the backward
  pass that computes it. It can hide behind no later pass: the update needs all
  gradients, and the perturbation the norm of all of them.

The network is ResNet-50, 25.6 million parameters; the gradients are in float32,
and the bytes of each method are added up from its variables and ESAM's subsets.
"""

import dataclasses
import functools

import numpy as np

from keras_esam import ESAMModel
from keras_esam.models import resnet50

NUM_DEVICES = (8, 64, 256, 1024)
BETA, GAMMA = 0.6, 0.5


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Devices and what connects them.

    Args:
        step_seconds: Float, what a device computes for in a step of SGD.
        bandwidth: Float, bytes per second of the slowest link, one way.
        latency: Float, seconds of a message from one device to the next.
        overlap: Boolean, whether communication hides behind backward passes.
    """

    step_seconds: float
    bandwidth: float
    latency: float
    overlap: bool


@dataclasses.dataclass(frozen=True)
class Exchange:
    """All-reduces that follow one pass.

    Args:
        num_bytes: Float, bytes of all of them.
        reductions: Integer, their number.
        hiding_units: Float, units of computation that can hide them.
    """

    num_bytes: float
    reductions: int
    hiding_units: float


@dataclasses.dataclass(frozen=True)
class Work:
    """What a method does in a step: units of computation and `Exchange`s."""

    units: float
    exchanges: tuple[Exchange, ...]


def all_reduce_seconds(exchange, num_devices, cluster):
    """Seconds of an exchange in a ring."""
    moved = 2 * (num_devices - 1) / num_devices * exchange.num_bytes
    messages = 2 * (num_devices - 1) * exchange.reductions
    return moved / cluster.bandwidth + messages * cluster.latency


def modelled_seconds(work, num_devices, cluster):
    """Seconds of a step by the model in the module's docstring."""
    unit = cluster.step_seconds / 3
    seconds = work.units * unit
    for exchange in work.exchanges:
        exposed = all_reduce_seconds(exchange, num_devices, cluster)
        if cluster.overlap:
            exposed = max(0, exposed - exchange.hiding_units * unit)
        seconds += exposed
    return seconds


@functools.cache
def resnet50_works():
    """Dict of method to the `Work` of its step on ResNet-50."""
    network = resnet50()
    sizes = [_bytes(v) for v in network.trainable_variables]
    statistics = sum(_bytes(v) for v in network.non_trainable_variables)
    model = ESAMModel(network, beta=BETA, gamma=GAMMA, seed=1)
    subsets = model.subset_pool.subsets
    subset = np.mean([sum(sizes[i] for i in s) for s in subsets])
    return works(sum(sizes), subset, statistics)


def works(gradient, subset, statistics):
    """The methods' steps, in the units and reductions of the benchmarks.

    Args:
        gradient: Integer, bytes of the gradient of all variables.
        subset: Float, bytes of that of an average subset.
        statistics: Integer, bytes of BatchNormalization's statistics.

    Returns:
        Dict of method to `Work`.
    """

    def work(units, last_backward, *ascent, updates=1):
        update = Exchange(gradient * updates, updates, last_backward)
        means = Exchange(statistics, 1, units - 1)
        return Work(units, (*ascent, means, update))

    # F1 + B1 + Fs + F2 + B2, of which F1's and B1's unperturbed layers and the
    # same layers of Fs run once or not at all.
    esam = 4 - 3 * (1 - BETA) + 3 * GAMMA
    return {
        "SGD": Work(3, (Exchange(gradient, 1, 2),)),
        "SAM": work(6, 2),
        "SAM, global": work(6, 2, Exchange(gradient, 1, 2)),
        "ESAM depth": work(esam, 2 * GAMMA),
        "ESAM depth, global": work(
            esam, 2 * GAMMA, Exchange(subset, 1, 2 * BETA)
        ),
        # The gradient that it keeps is reduced once more.
        "one-step": work(3, 2, updates=2),
    }


def _bytes(variable):
    return 4 * int(np.prod(variable.shape))


def table(step_seconds, bandwidths, latency):
    """Rows of the model: dicts of all that a row of the table says."""
    rows = []
    for bandwidth in bandwidths:
        for overlap in (False, True):
            cluster = Cluster(step_seconds, bandwidth, latency, overlap)
            for method, work in resnet50_works().items():
                seconds = {
                    n: modelled_seconds(work, n, cluster) for n in NUM_DEVICES
                }
                rows.append(
                    {
                        **dataclasses.asdict(cluster),
                        "method": method,
                        "bytes": sum(e.num_bytes for e in work.exchanges),
                        "seconds": seconds,
                    }
                )
    return rows


def markdown(rows):
    """Markdown table; in brackets the time relative to SAM's."""
    devices = " | ".join(f"{n:,} devices, ms" for n in NUM_DEVICES)
    lines = [
        f"| GB/s | overlap | | all-reduced, MB | {devices} |",
        "|---" * (4 + len(NUM_DEVICES)) + "|",
    ]
    sams = {
        (row["bandwidth"], row["overlap"]): row["seconds"]
        for row in rows
        if row["method"] == "SAM"
    }
    for row in rows:
        sam = sams[row["bandwidth"], row["overlap"]]
        cells = [
            f"{row['bandwidth'] / 1e9:g}",
            "yes" if row["overlap"] else "no",
            row["method"],
            f"{row['bytes'] / 1e6:.1f}",
        ]
        for n, seconds in row["seconds"].items():
            cells.append(f"{1e3 * seconds:.0f} ({seconds / sam[n]:.2f})")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
