"""Peak memory of training, in one process for each method.

A peak never falls, so a method needs a process of its own.
"""

import dataclasses
import json
import subprocess
import sys

from benchmarks import measurement
from benchmarks import operations
from benchmarks import tf_keras_sam
from benchmarks.engines import engine
from benchmarks.measurement import Setting


def measure_memory(method, setting):
    """What `memory_of` returns, from a new process."""
    command = [sys.executable, "-m", "benchmarks.memory", method]
    command.append(json.dumps(dataclasses.asdict(setting)))
    result = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(result.stdout.splitlines()[-1])


def memory_of(method, setting):
    """Memory of a training.

    Args:
        method: String.
        setting: `Setting`.

    Returns:
        Dict of MiB: `peak` of the resident set, which has the compiled steps,
        of which ESAM has one per subset, and `growth`, what came by training;
        with an accelerator both are the peak of its memory; `compiled`, that of
        the largest compiled step by the compiler, or `None`.
    """
    is_peer = method in tf_keras_sam.NAMES
    module = tf_keras_sam if is_peer else measurement
    model = module.make_model(method, setting)
    before = measurement.resident_memory("VmRSS")
    for _ in range(2):
        steps = measurement.steps_per_round(model, setting.steps)
        measurement.timed_epoch(model, setting, steps)
    peak = measurement.resident_memory("VmHWM")
    memory = {"peak": peak, "growth": peak - before, "compiled": None}
    on_device = engine.device_memory()
    if on_device is not None:
        memory["peak"] = memory["growth"] = on_device / 2**20
    plan = operations.largest_step(model)
    batch = measurement.make_batch(setting.batch_size)
    compiled = engine.compiled_memory(model, plan, *batch)
    if compiled is not None:
        memory["compiled"] = compiled / 2**20
    return memory


def main():
    method, setting = sys.argv[1:]
    print(json.dumps(memory_of(method, Setting(**json.loads(setting)))))


if __name__ == "__main__":
    main()
