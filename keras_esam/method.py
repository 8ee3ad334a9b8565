"""The training arguments of `ESAMModel`, and their checks."""

import dataclasses
import functools
import math
from collections.abc import Callable
from collections.abc import Hashable

import keras

from keras_esam import arguments
from keras_esam.ascent import ASCENTS
from keras_esam.ascent import SCALES
from keras_esam.ascent import SCOPES
from keras_esam.ascent import Ascent
from keras_esam.selection import RANKINGS
from keras_esam.selection import Ranking
from keras_esam.subsets import GRANULARITIES
from keras_esam.subsets import SMALLEST_BETA
from keras_esam.subsets import Granularity

Schedule = keras.optimizers.schedules.LearningRateSchedule
Stages = arguments.Stages


@dataclasses.dataclass(frozen=True)
class Method:
    """A method of training: the arguments of `ESAMModel`, checked.

    Args:
        preferred_pool_size: Optional integer, preferred number of subsets, see
            `subsets.Granularity`. Each subset costs a compilation.

    The other arguments are the same as in `ESAMModel`.
    """

    rho: float | Schedule = 0.05
    beta: float | Stages = 1.0
    gamma: float | Stages = 1.0
    perturbable: str | Callable | None = None
    granularity: str = "depth"
    rank_by: str = "sharpness"
    ascent: str = "current"
    ascent_fraction: float = 0.25
    ascent_scope: str = "replica"
    micro_batch_size: int | None = None
    start: int = 0
    adaptive: bool = False
    scale: str = "horvitz_thompson"
    preferred_pool_size: int | None = None

    def __post_init__(self):
        for name, check in CHECKS.items():
            object.__setattr__(self, name, check(getattr(self, name)))

    @property
    def is_base_optimizer(self) -> bool:
        return isinstance(self.rho, float) and self.rho == 0

    @property
    def ascent_rule(self) -> Ascent:
        return ASCENTS[self.ascent]

    @property
    def subset_rule(self) -> Granularity:
        return GRANULARITIES[self.granularity]

    @property
    def ranking(self) -> Ranking:
        return RANKINGS[self.rank_by]

    @property
    def clean_fraction(self) -> float:
        """Fraction of the batch in the unperturbed pass, 1 without one."""
        has_pass = self.ascent_rule.needs_clean_pass
        return self.ascent_fraction if has_pass else 1.0

    @property
    def needs_momentum(self) -> bool:
        """Whether steps read the optimizer's momentum."""
        return not self.is_base_optimizer and self.ascent_rule.needs_momentum

    @property
    def selects_samples(self) -> bool:
        """Whether SDS drops samples in some of the steps."""
        return not self.is_base_optimizer and min(_values(self.gamma)) < 1

    @property
    def splits_batches(self) -> bool:
        """Whether some passes see only a part of the batch."""
        has_parts = self.clean_fraction < 1 or self.micro_batch_size is not None
        has_parts = has_parts and not self.is_base_optimizer
        return has_parts or self.selects_samples

    @property
    def may_know_increase(self) -> bool:
        """Whether some steps know how much the losses increase."""
        gammas = _values(self.gamma)
        return not self.is_base_optimizer and any(
            map(self.knows_increase, gammas)
        )

    def knows_increase(self, gamma: float) -> bool:
        """Whether a step knows the loss increase without more passes."""
        if not self.ascent_rule.needs_clean_pass or self.clean_fraction < 1:
            return False
        return gamma == 1 or self.ranking.needs_increase

    def check_together(self):
        """Checks arguments that depend on each other."""
        rule = self.ascent_rule
        ranks_by_increase = self.selects_samples and self.ranking.needs_increase
        if ranks_by_increase and not rule.needs_clean_pass:
            raise ValueError(
                f'`ascent="{self.ascent}"` runs no pass at the unperturbed '
                "weights, so the rise of the losses is not known. Use "
                '`gamma=1`, `rank_by="loss"` or `rank_by="random"` with it. '
                f"Received: gamma={shown(self.gamma)}, "
                f"rank_by={self.rank_by!r}"
            )
        if self.clean_fraction < 1 and self.selects_samples:
            raise ValueError(
                "SDS, `gamma < 1`, ranks all samples of a batch, but with "
                "`ascent_fraction < 1` the unperturbed pass sees a part of "
                "them. Use `ascent_fraction=1` with it. "
                f"Received: gamma={shown(self.gamma)}, "
                f"ascent_fraction={self.ascent_fraction}"
            )
        is_small = min(_values(self.beta)) < SMALLEST_BETA
        if is_small and not self.subset_rule.by_scalar:
            raise ValueError(
                f"`beta` must be at least {SMALLEST_BETA}, since each "
                "of the `1 / beta` subsets has a compiled step. Use "
                '`granularity="weight"` for less. '
                f"Received: beta={shown(self.beta)}, "
                f"granularity={self.granularity!r}"
            )
        if self.micro_batch_size is None:
            return
        if not rule.needs_clean_pass:
            raise ValueError(
                f'`ascent="{self.ascent}"` takes no gradient of the batch, so '
                "there is none of its micro-batches. Use "
                "`micro_batch_size=None` with it. "
                f"Received: micro_batch_size={self.micro_batch_size}"
            )
        if self.ascent_scope == "global":
            raise ValueError(
                '`ascent_scope="global"` perturbs by one gradient of all '
                "replicas, `micro_batch_size` by one of a part of a replica's "
                "batch. Use one of them. "
                f"Received: micro_batch_size={self.micro_batch_size}"
            )


def shown(value):
    """A fraction or its stages, for an error message."""
    if arguments.is_stages(value):
        return f"stages {value.values} from steps {value.boundaries}"
    return value


def _values(value):
    """List of a fraction's values: its stages, or the constant."""
    return value.values if arguments.is_stages(value) else [value]


def _check_rho(rho):
    if arguments.is_stages(rho):
        for stage in rho.values:
            _check_rho(stage)
        return rho
    if isinstance(rho, Schedule):
        return rho
    if not arguments.is_number(rho):
        kinds = "a number or a `LearningRateSchedule`"
        raise arguments.type_error("rho", kinds, rho)
    if not 0 <= rho < math.inf:
        raise ValueError(
            "`rho` must be finite and at least 0; `rho=0` trains with the base "
            f"optimizer. Received: rho={rho}"
        )
    return float(rho)


def _check_perturbable(perturbable):
    known = perturbable is None or callable(perturbable)
    if not known and perturbable != "normalization":
        raise ValueError(
            '`perturbable` must be `None`, `"normalization"` or a function of '
            f"a variable. Received: perturbable={arguments.short(perturbable)}"
        )
    if not isinstance(perturbable, Hashable):
        raise arguments.type_error("perturbable", "hashable", perturbable)
    return perturbable


def _choice(name, choices):
    """Makes a check for one of `choices`, read at the time of the check."""
    return lambda value: arguments.check_choice(name, value, tuple(choices))


def _optional(check, name):
    return lambda value: None if value is None else check(name, value)


CHECKS = {
    "rho": _check_rho,
    "beta": functools.partial(arguments.check_fraction_or_stages, "beta"),
    "gamma": functools.partial(arguments.check_fraction_or_stages, "gamma"),
    "perturbable": _check_perturbable,
    "granularity": _choice("granularity", GRANULARITIES),
    "rank_by": _choice("rank_by", RANKINGS),
    "ascent": _choice("ascent", ASCENTS),
    "ascent_fraction": functools.partial(
        arguments.check_fraction, "ascent_fraction"
    ),
    "ascent_scope": _choice("ascent_scope", SCOPES),
    "micro_batch_size": _optional(arguments.check_count, "micro_batch_size"),
    "start": functools.partial(arguments.check_count, "start", minimum=0),
    "adaptive": functools.partial(arguments.check_boolean, "adaptive"),
    "scale": _choice("scale", SCALES),
    "preferred_pool_size": _optional(
        arguments.check_count, "preferred_pool_size"
    ),
}
