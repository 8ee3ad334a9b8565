"""The table of planted defects fits the package as it is."""

import ast
import re

import pytest

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
