"""How many cases are generated: `HYPOTHESIS_PROFILE=night` makes more."""

import os
import pathlib

import hypothesis
import keras
from hypothesis.configuration import set_hypothesis_home_dir

# For each of the tests.
PROFILES = {"default": 6, "night": 250}
if keras.backend.backend() == "jax":
    # Eager steps take ten times as long there.
    PROFILES = {"default": 3, "night": 25}

# Where there is a cache already that git ignores.
set_hypothesis_home_dir(
    pathlib.Path(__file__).parents[2] / ".pytest_cache" / "hypothesis"
)
for name, max_examples in PROFILES.items():
    hypothesis.settings.register_profile(
        f"keras_esam_{name}",
        max_examples=max_examples,
        # The same cases everywhere. No database: there is nothing to remember.
        derandomize=True,
        database=None,
        deadline=None,
        phases=[
            p for p in hypothesis.Phase if p is not hypothesis.Phase.explain
        ],
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
hypothesis.settings.load_profile(
    "keras_esam_" + os.environ.get("HYPOTHESIS_PROFILE", "default")
)
