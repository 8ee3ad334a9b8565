"""Plants defects in copies of the package, and expects tests to see each.

Usage: python -m tests.planted_defects [NAME ...] [--jobs N] [--list]

`NAME` is a part of the names of the defects to plant; all of them by default.
The defects and the tests that should see them are in `planted_defects.toml`.
First all these tests must pass without a defect. Then each defect is planted
alone, in a temporary copy, and one of its tests must fail.

Exit status 1 if a defect survives, or if an entry of the table is out of date.
"""

import argparse
import concurrent.futures
import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib

ROOT = pathlib.Path(__file__).parents[1]
TABLE = pathlib.Path(__file__).with_suffix(".toml")
COPIED = ("keras_esam", "tests", "benchmarks", "pyproject.toml")
TIMEOUT = 900  # seconds, for the tests of one defect on a busy machine
# Of pytest: all tests passed, and some failed.
PASSED, FAILED = 0, 1
# Errors of a defect that breaks Python instead of the method.
BROKEN = ("ImportError", "NameError", "SyntaxError", "UnboundLocalError")


class OutOfDate(Exception):
    """An entry of the table does not fit the package or its tests."""


@dataclasses.dataclass(frozen=True)
class Defect:
    """A defect, and the tests of which one must fail; see the table."""

    name: str
    file: str
    old: str
    new: str
    tests: list[str]
    backend: str = "tensorflow"
    count: int = 1


def read_table() -> list[Defect]:
    """The defects of `planted_defects.toml`."""
    table = tomllib.loads(TABLE.read_text())
    defects = [Defect(name, **entry) for name, entry in table.items()]
    return [
        dataclasses.replace(d, tests=[f"tests/{test}" for test in d.tests])
        for d in defects
    ]


def planted(source: str, defect: Defect) -> str:
    """The text of a file with a defect in it."""
    found = source.count(defect.old)
    if found != defect.count:
        raise OutOfDate(
            f"`old` must occur {defect.count} times in {defect.file}. "
            f"Received: {found} times, old={defect.old!r}"
        )
    changed = source.replace(defect.old, defect.new)
    compile(changed, defect.file, "exec")
    return changed


def copy_tree(folder: pathlib.Path, defect: Defect | None = None):
    """Copies what the tests need, with a defect in the copy."""
    for name in COPIED:
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, folder)
            continue
        ignored = shutil.ignore_patterns("__pycache__", "results")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    if defect is not None:
        path = folder / "keras_esam" / defect.file
        path.write_text(planted(path.read_text(), defect))


def run_tests(folder: pathlib.Path, backend: str, tests, *options):
    """Runs tests of a copy: exit status and output of pytest."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "", *options]
    result = subprocess.run(
        [*command, "-p", "no:cacheprovider", "-rf", "--tb=no", *tests],
        cwd=folder,
        env={
            "TF_CPP_MIN_LOG_LEVEL": "2",
            **os.environ,
            "COLUMNS": "1000",  # or pytest cuts the errors off
            "PYTHONPATH": str(folder),
            "KERAS_BACKEND": backend,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
    )
    return result.returncode, result.stdout


def failures(output: str) -> list[tuple[str, str]]:
    """Pairs of a failed test's id and its error, from pytest's summary."""
    return re.findall(r"^FAILED (.+?)(?: - (.*))?$", output, re.MULTILINE)


def failing_without_defect(backend: str, tests: list[str]) -> list[str]:
    """Ids of those tests that fail without a defect."""
    with tempfile.TemporaryDirectory() as folder:
        copy_tree(pathlib.Path(folder))
        status, output = run_tests(pathlib.Path(folder), backend, tests)
    if status not in (PASSED, FAILED):
        raise OutOfDate(f"the tests on {backend} can not be run:\n{output}")
    return [test for test, _ in failures(output)]


def catch(defect: Defect) -> tuple[str, float]:
    """The test that sees a defect, empty if none does, and seconds."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        copy_tree(pathlib.Path(folder), defect)
        status, output = run_tests(
            pathlib.Path(folder), defect.backend, defect.tests, "-x"
        )
    seconds = time.monotonic() - start
    if status == PASSED:
        return "", seconds
    seen = failures(output)
    if status != FAILED or not seen:
        raise OutOfDate(f"the tests can not be run:\n{output}")
    test, error = seen[0]
    if error.startswith(BROKEN):
        raise OutOfDate(f"the defect breaks Python: {error}")
    return test, seconds


def is_of(test: str, defect: Defect, backend: str) -> bool:
    """Whether a test's id is one of those that an entry names."""
    return defect.backend == backend and any(
        test == name or test.startswith((f"{name}[", f"{name}::"))
        for name in defect.tests
    )


def check_clean(defects: list[Defect], pool) -> dict[str, str]:
    """Why entries do not pass without their defect, by name of the defect."""
    backends = sorted({defect.backend for defect in defects})
    tests = [
        sorted({t for d in defects if d.backend == backend for t in d.tests})
        for backend in backends
    ]
    failing = pool.map(failing_without_defect, backends, tests)
    return {
        defect.name: f"fails without the defect: {test}"
        for backend, failed in zip(backends, failing, strict=True)
        for test in failed
        for defect in defects
        if is_of(test, defect, backend)
    }


def check_all(defects: list[Defect], jobs: int) -> bool:
    """Plants the defects, prints what sees them, and returns if all are."""
    survived, wrong = [], {}
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        wrong |= check_clean(defects, pool)
        results = {
            pool.submit(catch, defect): defect.name
            for defect in defects
            if defect.name not in wrong
        }
        for done in concurrent.futures.as_completed(results):
            name = results[done]
            try:
                test, seconds = done.result()
            except (OutOfDate, SyntaxError, subprocess.TimeoutExpired) as fault:
                wrong[name] = str(fault)
                continue
            if not test:
                survived.append(name)
            test = test or "SURVIVED"
            print(f"{name} | {test} | {seconds:.0f} s", flush=True)
    for name in survived:
        print(f"Survived: {name}")
    for name, fault in wrong.items():
        print(f"Out of date: {name}: {fault}")
    num_seen = len(defects) - len(survived) - len(wrong)
    print(f"{num_seen} of {len(defects)} defects seen")
    return not survived and not wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    names = arguments.names or [""]
    defects = [d for d in read_table() if any(name in d.name for name in names)]
    if not defects:
        parser.error(f"no defect has such a name. Received: {names}")
    if arguments.list:
        for defect in defects:
            print(f"{defect.name} | {' '.join(defect.tests)}")
        return
    sys.exit(0 if check_all(defects, arguments.jobs) else 1)


if __name__ == "__main__":
    main()
