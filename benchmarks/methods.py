"""The training methods that the benchmarks compare: arguments of ESAMModel."""

GRANULARITIES = ("weight", "variable", "depth")
RANKINGS = {
    "": {},
    " by loss": {"rank_by": "loss"},
    " random": {"rank_by": "random"},
}
SAM = {"beta": 1, "gamma": 1, "ascent_fraction": 1}

METHODS = {
    "SGD": {"rho": 0},
    "SAM": SAM,
    **{
        f"SWP {name}": {**SAM, "beta": 0.6, "granularity": name}
        for name in GRANULARITIES
    },
    **{
        f"SDS{name}": {**SAM, "gamma": 0.5, **ranking}
        for name, ranking in RANKINGS.items()
    },
    # The paper's beta and gamma.
    **{
        f"ESAM {granularity}{name}": {
            **{"beta": 0.6, "gamma": 0.5, "ascent_fraction": 1},
            "granularity": granularity,
            **ranking,
        }
        for granularity in GRANULARITIES
        for name, ranking in RANKINGS.items()
    },
    "SWP depth, beta 0.3": {**SAM, "beta": 0.3},
    **{
        f"SAM, part {fraction}": {**SAM, "ascent_fraction": fraction}
        for fraction in (0.125, 0.25, 0.5)
    },
    "SAM before its start": {**SAM, "start": 10**9},
    "one-step": {**SAM, "ascent": "momentum"},
    "one-step, adaptive": {**SAM, "ascent": "momentum", "adaptive": True},
    "one-step, beta 0.6": {**SAM, "beta": 0.6, "ascent": "momentum"},
    "one-step by loss": {
        **SAM,
        **{"gamma": 0.5, "ascent": "momentum", "rank_by": "loss"},
    },
}
