"""`ESAMModel`: sharpness-aware training of any Keras model with `fit`."""

import keras
import numpy as np

from keras_esam import arguments
from keras_esam import ascent
from keras_esam import sample_losses
from keras_esam import selection
from keras_esam import subsets
from keras_esam.trainers import Trainer

SCALES = ("horvitz_thompson", "authors")

# Methods of a network that `fit` would call on the network itself. The wrapper
# has its own, so a network that overrides them would train differently.
TRAINER_METHODS = ("train_step", "test_step", "compute_loss", "compute_metrics")


@keras.saving.register_keras_serializable(package="keras_esam")
class ESAMModel(Trainer, keras.Model):
    """Trains a network for flat minima: ESAM, SAM, ASAM or the base optimizer.

    Wrap a network, then `compile` and `fit` as usual. A training step of SAM
    computes the gradient at the weights plus a small perturbation, the one in
    the neighbourhood of radius `rho` that increases the loss the most. ESAM
    makes this cheaper in two ways:

    - SWP (stochastic weight perturbation): each step perturbs a random part of
        the weights only and computes the perturbation's gradient for it only;
    - SDS (sharpness-sensitive data selection): the second gradient is that of
        the samples whose loss the perturbation raises the most.

    `beta=1, gamma=1` reduces ESAM to SAM; with `adaptive=True` as well it is
    ASAM; `rho=0` is the base optimizer, step for step. The variables of the
    network are never set to the perturbed values.

    Args:
        model: A `keras.Model`: Sequential, functional or subclassed, built or
            not. It stays available as the attribute `model`; save that to get
            a plain Keras model.
        rho: Float, radius of the neighbourhood (l2 norm). 0 trains with the
            base optimizer alone; `beta` and `gamma` then have no effect.
            Defaults to `0.05`.
        beta: Float in `(0, 1]`, the expected fraction of the weights that a
            step perturbs. Defaults to `0.6`.
        gamma: Float in `(0, 1]`, the fraction of the batch that is kept for the
            update: `max(1, ceil(gamma * batch_size))` samples. Constant values
            below 1 slow early fitting. Defaults to `0.5`.
        granularity: `"variable"` perturbs whole variables, out of a balanced
            pool of subsets, and saves the gradients of the others; one step
            function is compiled per subset (5 at `beta=0.6`). `"weight"`
            perturbs each scalar weight independently, as in the paper's
            equation 5, and saves nothing. Defaults to `"variable"`.
        rank_by: How SDS ranks the samples: `"sharpness"`, the rise of the loss
            (one more forward pass, at the perturbed weights); `"loss"`, the
            loss at the unperturbed weights; `"random"`, the control that
            comparisons need. Defaults to `"sharpness"`.
        adaptive: Boolean, whether to use ASAM's scale-invariant neighbourhood,
            for which `rho` is about ten times that of SAM. Defaults to `False`.
        scale: How SWP scales the perturbation: `"horvitz_thompson"`, unbiased,
            or `"authors"`, `rho / beta` times the perturbed part of the
            gradient divided by the norm of that part, for those who reproduce
            the authors' numbers. Defaults to `"horvitz_thompson"`.
        seed: Integer in `[0, 2**31)`, seed of the subsets, their order, masks
            and random ranking. A random one if `None`; it is saved with the
            weights and loading them restores it. Defaults to `None`.
        name: Optional string, name of the model.

    Attributes are read when the training step is compiled; call `compile` again
    after changing one.

    The logs have `loss` and the compiled metrics, all of the unperturbed
    weights and the whole batch, and `sharpness`, the mean over the samples of
    the rise of their loss, data loss at the perturbed weights minus data loss
    at the unperturbed ones, in units of the loss. `sharpness` is there where
    it costs nothing: with `gamma=1`, and with `rank_by="sharpness"`.

    With `steps_per_execution=N` the subset changes every `N` steps.

    Example:

    ```python
    model = keras_esam.ESAMModel(network, rho=0.05, beta=0.6, gamma=0.5)
    model.compile(
        optimizer=keras.optimizers.SGD(0.1, momentum=0.9),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.fit(x_train, y_train, validation_data=(x_test, y_test))
    model.model.save("network.keras")
    ```

    Reference:

    - [Du et al., 2022](https://arxiv.org/abs/2110.03141), "Efficient
        Sharpness-aware Minimization for Improved Training of Neural Networks"
    """

    def __init__(
        self,
        model: keras.Model,
        rho: float = 0.05,
        beta: float = 0.6,
        gamma: float = 0.5,
        granularity: str = "variable",
        rank_by: str = "sharpness",
        adaptive: bool = False,
        scale: str = "horvitz_thompson",
        seed: int | None = None,
        name: str | None = None,
    ):
        _check_model(model)
        # The network converts its inputs itself, as if it were not wrapped.
        super().__init__(name=name, dtype=model.dtype_policy, autocast=False)
        self.rho = arguments.check_rho(rho)
        self.beta = arguments.check_fraction("beta", beta)
        self.gamma = arguments.check_fraction("gamma", gamma)
        self.granularity = arguments.check_choice(
            "granularity", granularity, subsets.GRANULARITIES
        )
        self.rank_by = arguments.check_choice(
            "rank_by", rank_by, selection.RANKINGS
        )
        self.adaptive = arguments.check_boolean("adaptive", adaptive)
        self.scale = arguments.check_choice("scale", scale, SCALES)
        self.seed = arguments.check_seed(seed)
        self.model = model
        self.supports_masking = True
        self.built = model.built
        # Keras passes `training` only to a `call` that asks for it.
        self._call_has_training_arg = model._call_has_training_arg
        self.seed_generator = keras.random.SeedGenerator(self.seed)
        self.sharpness_tracker = keras.metrics.Mean(name="sharpness")
        self._num_executions = 0
        self._traced_subset_index = None

    def call(self, inputs, training=None):
        if self._call_has_training_arg:
            return self.model(inputs, training=training)
        return self.model(inputs)

    @property
    def output_names(self) -> list[str]:
        """Names of the network's outputs, for losses and metrics by name."""
        return self.model.output_names

    @property
    def num_subsets(self) -> int:
        """Number of subsets of the variables, one compiled step for each."""
        if self.rho == 0 or self.granularity == "weight":
            return 1
        return subsets.pool_size(self.beta)

    @property
    def upcoming_subset(self) -> int:
        """Index of the subset that the next execution of `fit` perturbs."""
        return subsets.subset_at(
            self._num_executions, self.num_subsets, self.seed
        )

    @property
    def subset_pool(self) -> subsets.SubsetPool:
        """The subsets, as indices into `trainable_variables`."""
        num_variables = len(self.trainable_variables)
        if self.granularity == "weight":
            everything = tuple(range(num_variables))
            return subsets.SubsetPool(
                (everything,), (self.beta,) * num_variables
            )
        return subsets.draw_pool(num_variables, self.beta, self.seed)

    @property
    def _traced_subset(self) -> tuple[int, ...]:
        """Indices of the variables that the step being traced perturbs."""
        if self._traced_subset_index is None:
            raise ValueError(
                "`train_step()` is specialised to a subset of the variables "
                "and is to be called by `fit()` or `train_on_batch()` only."
            )
        if self.rho == 0:
            return ()
        return self.subset_pool.subsets[self._traced_subset_index]

    @property
    def _uses_sample_losses(self) -> bool:
        """Whether the clean pass needs the loss of each sample."""
        return self.gamma == 1 or self.rank_by != "random"

    def _inclusion_probabilities(self, subset) -> list[float]:
        """Probability of being perturbed, for each variable in a subset."""
        if self.scale == "authors":
            return [self.beta] * len(subset)
        probabilities = self.subset_pool.probabilities
        return [probabilities[index] for index in subset]

    def _draw_masks(self, weights):
        """Masks of the perturbed scalars, or `None` to perturb them all.

        Args:
            weights: List of tensors, values of the trainable variables.

        Returns:
            List of boolean tensors with the shapes of `weights`, or `None`.
        """
        if self.granularity != "weight" or self.beta == 1:
            return None
        return ascent.bernoulli_masks(
            [weight.shape for weight in weights], self.beta, self.seed_generator
        )

    def compute_sample_losses(self, x, y, y_pred, sample_weight=None):
        """Loss of each sample, by which SDS ranks them.

        A subclass that overrides `compute_loss()` overrides this too, or uses
        `gamma=1` or `rank_by="random"`.

        Args:
            x: Inputs, nested structure of tensors.
            y: Targets, nested structure of tensors.
            y_pred: Predictions, nested structure of tensors.
            sample_weight: Optional, nested structure of tensors.

        Returns:
            Tensor, shape `(batch_size,)`, whose mean is the compiled loss
            without regularisation and `add_loss()`; or `None` if the compiled
            loss does not tell the losses of the samples.
        """
        del x
        overridden = type(self).compute_loss is not keras.Model.compute_loss
        if overridden or self._compile_loss is None:
            return None
        return sample_losses.compiled_sample_losses(
            self._compile_loss, y, y_pred, sample_weight
        )

    def _no_sample_losses_error(self) -> ValueError:
        return ValueError(
            f'`gamma={self.gamma}` with `rank_by="{self.rank_by}"` needs the '
            "loss of each sample, shape `(batch_size,)`. Compile with a loss "
            "that does not reduce over the batch by itself, override "
            "`compute_sample_losses()` along with `compute_loss()`, or use "
            '`gamma=1` or `rank_by="random"`. '
            f"Received: loss={self.loss}"
        )

    def _check_trainable(self):
        """Raises an error if the network and the optimizer can not be trained.

        Raises:
            ValueError: If there is nothing to train, or no optimizer, or one
                that was built for the variables of another model.
        """
        if not self.trainable_variables:
            raise ValueError(
                "`model` must have trainable weights. Received: "
                f"model={self.model}, all of whose weights are frozen or which "
                "has none."
            )
        if self.optimizer is None:
            raise ValueError(
                "`compile()` must be given an optimizer. Received: "
                "optimizer=None"
            )
        if self.optimizer.built:
            try:
                self.optimizer._check_variables_are_known(
                    self.trainable_variables
                )
            except ValueError as error:
                raise ValueError(
                    "The optimizer was built for the variables of another "
                    "model, or before some of these variables became "
                    "trainable. Give each model an optimizer of its own. "
                    f"Received: optimizer={self.optimizer}"
                ) from error

    def save_own_variables(self, store):
        """Saves the place in the order of subsets, and all random states.

        Keras does not save the states of seed generators, so without this a
        resumed run would draw other dropout masks.
        """
        super().save_own_variables(store)
        store["seed"] = np.asarray(self.seed)
        store["num_executions"] = np.asarray(self._num_executions)
        for index, variable in enumerate(self._random_states()):
            store[f"random_state_{index}"] = variable

    def load_own_variables(self, store):
        """Restores what `save_own_variables` saved."""
        keys = list(store.keys())
        super().load_own_variables({k: store[k] for k in keys if k.isdigit()})
        states = self._random_states()
        saved = [key for key in keys if key.startswith("random_state_")]
        if len(saved) != len(states):
            raise ValueError(
                f"`{self.name}` has {len(states)} random states and the file "
                f"has {len(saved)}. The saved network had other random layers."
            )
        for index, variable in enumerate(states):
            variable.assign(store[f"random_state_{index}"])
        self._num_executions = int(np.asarray(store["num_executions"]))
        seed = int(np.asarray(store["seed"]))
        if seed != self.seed:
            self.seed = seed
            # The compiled steps have the subsets of the other seed.
            self.make_train_function(force=True)

    def _random_states(self):
        weights = {id(variable) for variable in self.weights}
        return [v for v in self.variables if id(v) not in weights]

    def get_config(self):
        return {
            "model": keras.saving.serialize_keras_object(self.model),
            "rho": self.rho,
            "beta": self.beta,
            "gamma": self.gamma,
            "granularity": self.granularity,
            "rank_by": self.rank_by,
            "adaptive": self.adaptive,
            "scale": self.scale,
            "seed": self.seed,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        config["model"] = keras.saving.deserialize_keras_object(
            config["model"], custom_objects=custom_objects
        )
        return cls(**config)


def _check_model(model):
    if not isinstance(model, keras.Model):
        raise TypeError(
            "`model` must be an instance of `keras.Model`. "
            f"Received: model={model} of type {type(model)}"
        )
    if isinstance(model, ESAMModel):
        raise ValueError(
            "`model` must be a plain network and not an `ESAMModel`. To train "
            "a wrapped network otherwise, wrap its attribute `model`. "
            f"Received: model={model}"
        )
    overridden = [
        method
        for method in TRAINER_METHODS
        if getattr(type(model), method) is not getattr(keras.Model, method)
    ]
    if overridden:
        raise ValueError(
            f"`model` must not override {overridden}: `ESAMModel` trains with "
            "its own. Override them in a subclass of `ESAMModel` instead. "
            f"Received: model={model}"
        )
