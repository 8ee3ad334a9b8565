"""The table of planted defects fits the package as it is."""

import ast
import re

import pytest

from tests import planted_defects
from tests.planted_defects import ROOT
from tests.planted_defects import Defect
from tests.planted_defects import OutOfDate
from tests.planted_defects import planted
from tests.planted_defects import read_table


@pytest.mark.parametrize("defect", read_table(), ids=lambda d: d.name)
def test_defect_can_be_planted(defect):
    source = (ROOT / "keras_esam" / defect.file).read_text()
    assert ast.dump(ast.parse(planted(source, defect))) != ast.dump(
        ast.parse(source)
    )
    for test in defect.tests:
        path, name = test.split("::")
        function = re.escape(name.split("[")[0])
        assert re.search(
            rf"^def {function}\(", (ROOT / path).read_text(), re.MULTILINE
        )


@pytest.mark.parametrize("source", ["", "a = b", "a = 1\nb = 1"])
def test_entry_that_is_out_of_date_is_an_error(source):
    defect = Defect("wrong", "file.py", "= 1", "= 2", ["tests/a.py::test_a"])
    with pytest.raises(OutOfDate, match="must occur 1 times in file.py"):
        planted(source, defect)


@pytest.mark.parametrize(
    ("status", "output", "is_seen"),
    [
        (0, "1 passed", False),
        (1, "FAILED tests/a.py::test_a - assert 1 == 2", True),
        (1, "FAILED tests/a.py::test_a - NameError: name 'a'", False),
        (2, "no such test", False),
    ],
)
def test_only_a_failing_test_sees_a_defect(
    status, output, is_seen, monkeypatch
):
    def run_tests(folder, backend, tests, *options):
        return (status, output) if "-x" in options else (0, "")

    monkeypatch.setattr(planted_defects, "run_tests", run_tests)
    assert planted_defects.check_all(read_table()[:1], jobs=1) == is_seen


def test_defect_whose_tests_fail_without_it_is_not_seen(monkeypatch):
    defect = read_table()[0]
    failed = 1, f"FAILED {defect.tests[0]} - assert False"
    monkeypatch.setattr(planted_defects, "run_tests", lambda *args: failed)
    assert not planted_defects.check_all([defect], jobs=1)
