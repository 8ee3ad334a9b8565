"""The training methods that the benchmarks compare: arguments of ESAMModel."""

PAPER = {"beta": 0.6, "gamma": 0.5}

METHODS = {
    "SGD": {"rho": 0},
    "SAM": {"beta": 1, "gamma": 1},
    "SWP weight": {"beta": 0.6, "gamma": 1, "granularity": "weight"},
    "SWP variable": {"beta": 0.6, "gamma": 1, "granularity": "variable"},
    "SWP depth": {"beta": 0.6, "gamma": 1, "granularity": "depth"},
    "SDS": {"beta": 1, "gamma": 0.5},
    "SDS by loss": {"beta": 1, "gamma": 0.5, "rank_by": "loss"},
    "SDS random": {"beta": 1, "gamma": 0.5, "rank_by": "random"},
    "ESAM weight": {**PAPER, "granularity": "weight"},
    "ESAM weight by loss": {
        **PAPER,
        "granularity": "weight",
        "rank_by": "loss",
    },
    "ESAM weight random": {
        **PAPER,
        "granularity": "weight",
        "rank_by": "random",
    },
    "ESAM variable": {**PAPER, "granularity": "variable"},
    "ESAM variable by loss": {
        **PAPER,
        "granularity": "variable",
        "rank_by": "loss",
    },
    "ESAM variable random": {
        **PAPER,
        "granularity": "variable",
        "rank_by": "random",
    },
    "ESAM depth": {**PAPER, "granularity": "depth"},
    "ESAM depth by loss": {**PAPER, "granularity": "depth", "rank_by": "loss"},
    "ESAM depth random": {**PAPER, "granularity": "depth", "rank_by": "random"},
    "SWP depth, beta 0.3": {"beta": 0.3, "gamma": 1, "granularity": "depth"},
    "SAM, interval 2": {"beta": 1, "gamma": 1, "interval": 2},
    "one-step": {"beta": 1, "gamma": 1, "ascent": "previous"},
    "one-step, beta 0.6": {"beta": 0.6, "gamma": 1, "ascent": "previous"},
    "one-step by loss": {
        "beta": 1,
        "gamma": 0.5,
        "ascent": "previous",
        "rank_by": "loss",
    },
}


def file_name(method):
    """Name of a method in paths."""
    return method.replace(" ", "_").replace(",", "")
