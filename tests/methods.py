"""The table of methods that the common battery of tests goes through."""

METHODS = {
    "sgd": {"rho": 0},
    "sam": {"beta": 1, "gamma": 1},
    "asam": {"beta": 1, "gamma": 1, "rho": 0.5, "adaptive": True},
    "swp_variable": {"gamma": 1},
    "swp_weight": {"gamma": 1, "granularity": "weight"},
    "swp_authors": {"gamma": 1, "scale": "authors"},
    "sds_sharpness": {"beta": 1},
    "sds_loss": {"beta": 1, "rank_by": "loss"},
    "sds_random": {"beta": 1, "rank_by": "random"},
    "esam_variable": {},
    "esam_variable_loss": {"rank_by": "loss"},
    "esam_variable_random": {"rank_by": "random"},
    "esam_weight": {"granularity": "weight"},
    "esam_weight_loss": {"granularity": "weight", "rank_by": "loss"},
    "esam_weight_random": {"granularity": "weight", "rank_by": "random"},
}
