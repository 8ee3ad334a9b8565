"""Tables of `benchmarks.scaling`."""

import dataclasses

from benchmarks import communication
from benchmarks import measurement
from benchmarks import scaling_model
from benchmarks import throughput_report as report


def markdown_of_times(entries):
    """Markdown table of the times. In brackets are the quartiles."""
    lines = [
        "| replicas | batch of each | | CPU ms/step | wall ms/step | images/s "
        "| CPU time / SGD's |",
        "|---" * 7 + "|",
    ]
    for entry in entries:
        for method, row in entry["rows"].items():
            speed = row.get("speed_relative_to_SGD")
            cells = [
                str(entry["replicas"]),
                str(entry["batch_size"]),
                method,
                report.median_and_quartiles(row["cpu_ms"], 1),
                report.median_and_quartiles(row["wall_ms"], 1),
                report.median_and_quartiles(row["images_per_second"], 0),
                # Quartiles of the inverse are the inverse quartiles, reversed.
                report.median_and_quartiles(
                    speed and [1 / s for s in speed[::-1]], 2
                ),
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def markdown_of_counts(counts):
    """Markdown table of bytes and reductions by network and method."""
    titles = [f"{p}, KiB (reductions)" for p in communication.PURPOSES]
    lines = [
        f"| network | | {' | '.join(titles)} | gradients / SGD's |",
        "|---" * (len(titles) + 3) + "|",
    ]
    for network, methods in counts.items():
        for method, counted in methods.items():
            cells = [network, method]
            for purpose in communication.PURPOSES:
                part = counted.get(purpose, {"bytes": 0, "reductions": 0})
                kibibytes = part["bytes"] / 1024
                cells.append(f"{kibibytes:.1f} ({part['reductions']:.0f})")
            own = communication.gradient_bytes(counted)
            sgd = communication.gradient_bytes(methods["SGD"])
            lines.append("| " + " | ".join([*cells, f"{own / sgd:.3f}"]) + " |")
    return "\n".join(lines) + "\n"


def write(out, setting, entries, counts, model):
    out.mkdir(parents=True, exist_ok=True)
    sizes = dataclasses.asdict(setting)
    del sizes["batch_size"]
    results = {
        "machine": measurement.describe_machine(),
        "setting": sizes,
        "measured": entries,
        "counted_per_step": counts,
        "model_not_measured": model,
    }
    measurement.write_json(results, out / "results.json")
    first = model[0]
    table = "\n".join(
        [
            f"Measured: {setting.network}, width {setting.width}, depth "
            f"{setting.depth}, replicas on logical CPUs of one machine.\n",
            markdown_of_times(entries),
            "Counted in the traced step of two replicas, for each replica; a "
            "mean over the compiled steps.\n",
            markdown_of_counts(counts),
            "**A model and not a measurement**: ResNet-50, "
            f"{1e3 * first['step_seconds']:g} ms of computation in a step of "
            f"SGD on each device, a latency of {1e6 * first['latency']:g} us, "
            "one ring; the assumptions are those of "
            "`benchmarks/scaling_model.py`. In brackets the time relative to "
            "SAM's.\n",
            scaling_model.markdown(model),
        ]
    )
    (out / "table.md").write_text(table)
    print(table)
    print(f"Written to {out}")
