"""What a training on several replicas must end with, by hand in NumPy."""

from tests import reference_run

METHODS = {
    "sam": {"beta": 1, "gamma": 1},
    "esam": {},
    "esam_variable": {
        "beta": 0.5,
        "granularity": "variable",
        "rank_by": "loss",
    },
    "micro_batches": {"beta": 1, "micro_batch_size": 4},
    "global_sam": {"beta": 1, "gamma": 1, "ascent_scope": "global"},
    "global_sds": {"beta": 1, "ascent_scope": "global"},
    "one_step": {"ascent": "previous", "gamma": 1},
}
CASES = [*((name, 2) for name in METHODS), ("global_sam", 4)]


def make_case(name):
    arguments = {"rho": 0.3, "seed": 5, **METHODS[name]}
    return reference_run.Case(
        arguments, num_samples=80, batch_size=16, run_eagerly=False
    )


def make_model(name):
    model = reference_run.make_model(make_case(name))
    # To compile each subset for all replicas takes long.
    model.preferred_pool_size = 2
    return model


def weights_after(name, num_replicas, params):
    """Parameters after the training, from the given ones."""
    params = [p.astype("float64") for p in params]
    return reference_run.reference_weights(
        make_model(name), make_case(name), params, num_replicas=num_replicas
    )
