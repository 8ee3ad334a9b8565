"""`ESAMModel`: sharpness-aware training of any Keras model with `fit`."""

import dataclasses
import functools
from collections.abc import Callable

import keras

from keras_esam import arguments
from keras_esam import network_attributes
from keras_esam import own_calls
from keras_esam import training_state
from keras_esam.dispatcher import StepDispatcher
from keras_esam.method import Method
from keras_esam.network_attributes import NetworkAttributes
from keras_esam.tasks import TaskTrainer
from keras_esam.trainers import Model
from keras_esam.trainers.base_model import Findings
from keras_esam.training_state import TrainingProgress

# Arguments that are Keras objects, or may be.
SERIALIZED = ("model", "rho", "beta", "gamma", "perturbable")


@keras.saving.register_keras_serializable(package="keras_esam")
class ESAMModel(TaskTrainer, NetworkAttributes, Model):
    """Trains a network for flat minima: SAM, ESAM, ASAM or the base optimizer.

    Wrap a network, then `compile` and `fit` as usual. SAM takes the gradient
    not at the weights, but at the weights plus a small perturbation: the one
    within the radius `rho` that increases the loss the most. By default the
    perturbation is computed on a quarter of the batch, and the update's
    gradient on all of it. Batches must be shuffled, as `fit` does with arrays.

    ESAM, the method of the paper below, makes SAM cheaper in two other ways:

    - SWP (stochastic weight perturbation): each step perturbs a random subset
        of the weights and computes the perturbation's gradient for it only;
    - SDS (sharpness-sensitive data selection): the second gradient uses only
        the samples whose loss the perturbation increases the most.

    `ascent_fraction=1` is SAM; with `adaptive=True` as well it is ASAM;
    `beta=0.6, gamma=0.5, ascent_fraction=1, granularity="variable"` is the
    paper's ESAM; `rho=0` is the base optimizer, step for step. The network's
    variables are never set to the perturbed values.

    Args:
        model: A `keras.Model`: Sequential, functional or subclassed, built or
            not. It stays available as the attribute `model`; save that to get
            a plain Keras model. With a KerasHub task, such as
            `keras_hub.models.TextClassifier`, `compile`, `fit`, `evaluate` and
            `predict` are the task's own and preprocess the data.
        rho: Float, radius of the neighbourhood (l2 norm). 0 trains with the
            base optimizer alone. Or constant stages, as for `beta`, or another
            Keras `LearningRateSchedule` of the optimizer's iterations. Defaults
            to `0.05`.
        beta: Float in `[0.01, 1]`, expected fraction of the variables that a
            step perturbs. With `granularity="weight"`, fraction of the weights,
            in `(0, 1]`. Or a Keras `PiecewiseConstantDecay` over the training
            steps, for a few constant stages. The paper uses 0.6. Defaults to
            `1.0`.
        gamma: Float in `(0, 1]`, fraction of the batch that is kept for the
            update: `max(1, ceil(gamma * batch_size))` samples. Or stages, as
            for `beta`. The paper uses 0.5, which slows early fitting. Less than
            1 needs `ascent_fraction=1`. Defaults to `1.0`.
        perturbable: Which weights may be perturbed. `None`: all of them.
            `"normalization"` (SAM-ON): the scales and shifts of layers with
            `Norm` in the name of their class; `rho` is then five to ten times
            larger. Or a function of a `keras.Variable` that returns whether it
            may be perturbed; register it for saving if the model is to be
            saved. Defaults to `None`.
        granularity: Which weights are perturbed together. `"depth"`: all
            variables from a random depth to the output; layers below the
            lowest perturbed layer are computed once per step and reused.
            `"variable"`: whole variables, as in the authors' code; saves the
            gradients of the others. `"weight"`: each scalar independently, as
            in the paper's equation 5; saves nothing. The first two draw from a
            small pool of subsets and compile one step for each of them (3 and 5
            at `beta=0.6`). Defaults to `"depth"`.
        rank_by: How SDS ranks the samples. `"sharpness"`: by the increase of
            their loss, at the cost of one forward pass. `"loss"`: by their
            loss. `"random"`: as a control for comparisons. Defaults to
            `"sharpness"`.
        ascent: What defines the perturbation: the gradient of the current batch
            (`"current"`) or minus the optimizer's momentum (`"momentum"`,
            Momentum-SAM, which looks ahead along the update). The latter is
            experimental: it costs what the base optimizer costs. In this
            project's benchmarks it gained on random labels, with about four
            times SAM's `rho`, and nowhere else. It needs an optimizer with
            momentum, and `gamma=1` or a `rank_by` other than `"sharpness"`;
            `beta` saves nothing. Defaults to `"current"`.
        ascent_fraction: Float in `(0, 1]`, fraction of the batch whose gradient
            defines the perturbation: `ceil(ascent_fraction * batch_size)`
            samples, or one more if that is odd, evenly spread over the
            (replica's) batch. The update's gradient uses all samples. With
            `0.25` a step has about 62% of the operations of SAM's. The radius
            is `rho` divided by a running mean of the cosine between the
            ascent's and the update's gradient. The mean starts at 1 and counts
            as at least `sqrt(ascent_fraction)`, so one `rho` serves all
            fractions. Less than 1 needs `gamma=1` and shuffled batches. No
            effect with `ascent="momentum"`. Defaults to `0.25`.
        ascent_scope: Whose gradient defines the perturbation under
            `tf.distribute`: each replica's own (`"replica"`) or all replicas'
            (`"global"`, which with `ascent_fraction=1` trains as one device
            would, at the cost of a second all-reduce, and of a third with
            `ascent_fraction < 1`). No effect on JAX, where devices share one
            gradient, or with `ascent="momentum"`. Defaults to `"replica"`.
        micro_batch_size: Optional integer, m of m-sharpness: each `m` samples
            of a (replica's) batch get a perturbation of their own, and the
            resulting gradients are averaged. Each micro-batch has its own
            selected samples, random numbers and BatchNormalization statistics.
            The loss is the compiled loss of the whole batch; a loss that
            reduces over the batch by itself is averaged. `None` means the whole
            batch. Defaults to `None`.
        start: Integer, number of training steps with the base optimizer before
            the first sharpness-aware step, counted over the model's whole
            training. With `steps_per_execution`, sharpness-aware training
            starts with the next execution. Defaults to `0`.
        adaptive: Boolean, whether to use ASAM's scale-invariant neighbourhood,
            for which `rho` is ten to forty times larger. Biases are scaled too,
            unlike in its authors' code. Defaults to `False`.
        scale: How SWP scales the perturbation: `"horvitz_thompson"`, unbiased,
            or `"authors"`, `rho / beta` times the perturbed part of the
            gradient divided by that part's norm, to reproduce the authors'
            numbers. Defaults to `"horvitz_thompson"`.
        seed: Integer in `[0, 2**31)`, seed of the subsets, their order, masks
            and random ranking. `None` draws one. It is saved with the weights,
            and loading them restores it. Defaults to `None`.
        name: Optional string, name of the model.

    The arguments are attributes. They may be set at any time, even between the
    batches of `fit`; the training step is then compiled again.

    The logs contain `loss`, the compiled metrics and `sharpness`. Loss and
    metrics come from the unperturbed pass, over a quarter of the batch by
    default. `sharpness` is the mean increase of the samples' loss, in units of
    the loss, without samples whose increase is not finite. It is logged where
    it costs nothing: with `ascent_fraction=1`, so that both passes see the same
    samples, and either `gamma=1` or `rank_by="sharpness"`. It is NaN in an
    epoch in which no step measures it. With `ascent="momentum"` there is no
    pass at the unperturbed weights: `loss`, metrics and BatchNormalization
    statistics are taken at the perturbed weights, so the logged loss includes
    the sharpness.

    `"depth"` orders layers by their place in the graph in functional and
    Sequential networks, and by the order in which they became attributes in
    subclassed ones. Stages of `rho`, `beta` and `gamma` follow the steps of the
    model's whole training, through later calls of `compile`. With
    `steps_per_execution=N` the subset and the stages change every `N` steps.

    Variables with `overwrite_with_gradient=True`, the scales and histories of
    float8 training, are not perturbed. They get the values of the unperturbed
    pass, and the largest values over micro-batches and replicas.

    Example:

    ```python
    model = keras_esam.ESAMModel(network, rho=0.05)
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
        rho: float | keras.optimizers.schedules.LearningRateSchedule = 0.05,
        beta: float | keras.optimizers.schedules.PiecewiseConstantDecay = 1.0,
        gamma: float | keras.optimizers.schedules.PiecewiseConstantDecay = 1.0,
        perturbable: str | Callable | None = None,
        granularity: str = "depth",
        rank_by: str = "sharpness",
        ascent: str = "current",
        ascent_fraction: float = 0.25,
        ascent_scope: str = "replica",
        micro_batch_size: int | None = None,
        start: int = 0,
        adaptive: bool = False,
        scale: str = "horvitz_thompson",
        seed: int | None = None,
        name: str | None = None,
    ):
        network_attributes.check_network(model, wrapper=ESAMModel)
        # The network converts its inputs itself, as if it were not wrapped.
        super().__init__(name=name, dtype=model.dtype_policy, autocast=False)
        self._check_strategy(model)
        self._method = Method(
            rho=rho,
            beta=beta,
            gamma=gamma,
            perturbable=perturbable,
            granularity=granularity,
            rank_by=rank_by,
            ascent=ascent,
            ascent_fraction=ascent_fraction,
            ascent_scope=ascent_scope,
            micro_batch_size=micro_batch_size,
            start=start,
            adaptive=adaptive,
            scale=scale,
        )
        self._method.check_together()
        self._has_drawn_seed = seed is None
        self._progress = TrainingProgress(
            self._checked_seed(seed), self.variable_dtype
        )
        self.model = model
        self.supports_masking = True
        # Keras passes `training` only to a `call` that asks for it.
        self._call_has_training_arg = model._call_has_training_arg
        self.seed_generator = keras.random.SeedGenerator(self.seed)
        self.sharpness_tracker = keras.metrics.Mean(name="sharpness")
        self._findings = Findings()
        self._has_sharpness = False
        self._has_warned = False
        self._track_training_state()

    def call(self, inputs, training=None):
        if own_calls.is_foreign(training):
            self._warn_of_foreign_call()
        # Or else the network's own default, or Keras' context, decides.
        if self._call_has_training_arg and training is not None:
            return self.model(inputs, training=training)
        return self.model(inputs)

    def _warn_of_foreign_call(self):
        trains = self.trainable_variables and not self._method.is_base_optimizer
        if trains and not self._has_warned:
            self._has_warned = True
            own_calls.warn(self)

    @property
    def _calls_network_alone(self) -> bool:
        """Whether a call of the model is one of the network and nothing else,
        as it is unless a subclass has its own `call`."""
        return type(self).call is ESAMModel.call

    @property
    def output_names(self) -> list[str]:
        """Names of the network's outputs, for losses and metrics by name."""
        return self.model.output_names

    @property
    def built(self) -> bool:
        """Whether the network is built. The wrapper has no weights itself."""
        network = getattr(self, "model", None)
        return network is not None and network.built

    @built.setter
    def built(self, value):
        """Ignored: Keras sets it, and only building the network changes it."""

    def build(self, input_shape):
        """Builds the network for inputs of a shape.

        Args:
            input_shape: Shape `(batch_size, d0, .. dN)`, or a nested structure
                of them.
        """
        if not self.model.built:
            self.model(
                keras.tree.map_shape_structure(keras.KerasTensor, input_shape)
            )

    # Lets Keras build by a symbolic call, which knows the dtypes of the inputs.
    build._is_default = True

    def _set_argument(self, name, value):
        method = dataclasses.replace(self._method, **{name: value})
        if method == self._method:
            return
        self._sync_variables()
        self._method = method
        # Compiled steps have the old value in them.
        self._forget_compiled_steps()

    def _forget_compiled_steps(self):
        self._findings = Findings()
        if isinstance(self.train_function, StepDispatcher):
            self.train_function.forget()
        elif self.train_function is not None:
            self.make_train_function(force=True)

    def _checked_seed(self, seed):
        is_drawn = seed is None
        seed = arguments.check_seed(seed)
        return self._same_on_all_workers(seed) if is_drawn else seed

    @property
    def seed(self) -> int:
        """Seed of the subsets, their order, masks and random ranking."""
        self._read_progress()
        return self._progress.seed

    @seed.setter
    def seed(self, value):
        self._has_drawn_seed = value is None
        value = self._checked_seed(value)
        if value == self.seed:
            return
        self._sync_variables()
        self._progress.seed = value
        self._progress.write()
        state = keras.random.SeedGenerator(value).state
        self.seed_generator.state.assign(state)

    @property
    def variables(self) -> list:
        """All state of network and training, without optimizer and metrics.

        Beside the network's weights, these are the states of seeds and what a
        resumed training needs to continue.
        """
        return [*super().variables, *self._training_variables]

    @property
    def metrics(self) -> list:
        """Loss, compiled metrics, the network's metrics and `sharpness`."""
        metrics = super().metrics
        place = metrics.index(self.sharpness_tracker)
        # Keras leaves out the metrics of a model within a model.
        of_layers = [m for layer in self.model.layers for m in layer.metrics]
        known = set(map(id, of_layers))
        own = keras.Layer.metrics.fget(self.model)
        metrics[place : place + 1] = [m for m in own if id(m) not in known]
        return [*metrics, self.sharpness_tracker]

    def export(self, *args, **kwargs):
        """Exports the network for inference, see `keras.Model.export()`."""
        if self._calls_network_alone:
            return self.model.export(*args, **kwargs)
        return super().export(*args, **kwargs)

    @functools.wraps(keras.Model.save)
    def save(self, filepath, *args, **kwargs):
        if str(filepath).endswith((".h5", ".hdf5")):
            raise ValueError(
                "`filepath` must end with `.keras`: an HDF5 file has no place "
                "for the state of the training. Save the network alone, "
                "`model.model.save()`, if you need one. "
                f"Received: filepath={filepath}"
            )
        return super().save(filepath, *args, **kwargs)

    def save_own_variables(self, store):
        """Saves the training state too, see `keras_esam.training_state`."""
        super().save_own_variables(store)
        training_state.save(self, store)

    def load_own_variables(self, store):
        """Restores what `save_own_variables` saved."""
        training_state.check(self, store)
        weights = {key: store[key] for key in store.keys() if key.isdigit()}
        super().load_own_variables(weights)
        training_state.load(self, store)

    def get_config(self):
        config = {
            "model": self.model,
            **vars(self._method),
            "seed": self.seed,
            "name": self.name,
        }
        del config["preferred_pool_size"]
        # Networks and schedules become dicts, all else stays as it is.
        for key in SERIALIZED:
            config[key] = keras.saving.serialize_keras_object(config[key])
        return config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for key in config.keys() & set(SERIALIZED):
            config[key] = keras.saving.deserialize_keras_object(
                config[key], custom_objects=custom_objects
            )
        return cls(**config)


def _argument(name):
    """Property that reads and sets an argument of the training method."""

    def get(model):
        return getattr(model._method, name)

    def set(model, value):
        model._set_argument(name, value)

    return property(get, set)


for _field in dataclasses.fields(Method):
    # Only tests and benchmarks set the pool's size, and it is not saved.
    _prefix = "_" if _field.name == "preferred_pool_size" else ""
    setattr(ESAMModel, _prefix + _field.name, _argument(_field.name))
