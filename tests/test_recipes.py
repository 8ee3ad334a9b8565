"""Recipes: the paper's values, and what they build."""

import copy
import dataclasses
import json
import pickle

import keras
import pytest

import keras_esam
from keras_esam import recipes


def test_there_is_a_recipe_for_every_row_of_the_tables():
    assert len(recipes.names()) == (2 * 3 + 2) * 7
    for name in recipes.names():
        recipe = recipes.get(name)
        assert recipe.name == name
        # Every value has its source, and every source a value.
        fields = {field.name for field in dataclasses.fields(recipe)}
        fields -= {"name", "esam", "sources"}
        assert fields <= set(recipe.sources)
        assert set(recipe.esam) <= set(recipe.sources)
        assert set(recipe.sources) == fields | set(recipe.esam)


@pytest.mark.parametrize(
    "name, epochs, batch_size, weight_decay, rho, beta, gamma",
    [
        ("cifar10/resnet18/esam", 200, 128, 1e-3, 0.05, 0.6, 0.5),
        ("cifar100/resnet18/sam", 200, 128, 1e-3, 0.05, 1.0, 1.0),
        ("cifar100/wrn-28-10/esam", 200, 256, 1e-3, 0.1, 0.5, 0.5),
        ("cifar10/pyramidnet-110/esam-swp", 300, 256, 1e-3, 0.2, 0.6, 1.0),
        ("cifar10/resnet18/esam-sds", 200, 128, 1e-3, 0.05, 1.0, 0.5),
        ("cifar10/wrn-28-10/sam-quarter", 200, 256, 1e-3, 0.1, 1.0, 1.0),
        ("imagenet/resnet101/esam", 90, 512, 1e-4, 0.05, 0.6, 0.7),
    ],
)
def test_values_are_those_of_the_paper(
    name, epochs, batch_size, weight_decay, rho, beta, gamma
):
    recipe = recipes.get(name)
    assert (recipe.epochs, recipe.batch_size) == (epochs, batch_size)
    assert recipe.weight_decay == weight_decay
    esam = recipe.esam
    assert (esam["rho"], esam["beta"], esam["gamma"]) == (rho, beta, gamma)


def test_recipe_trains_by_what_it_builds():
    recipe = recipes.get("cifar100/resnet18/esam")
    network = recipe.make_network(width=2, depth=1)
    assert network.output_shape == (None, 100)
    model = keras_esam.ESAMModel(network, **recipe.esam)
    assert (model.rho, model.granularity) == (0.05, "variable")
    model.compile(recipe.make_optimizer(10), "sparse_categorical_crossentropy")
    assert recipe.pipeline == {"name": "cifar100", "batch_size": 128}
    assert recipes.get("imagenet/resnet50/sgd").pipeline == {"batch_size": 512}
    esam = recipes.get("imagenet/resnet50/esam").esam
    assert esam["micro_batch_size"] == 128 and "micro_batch_size" not in (
        recipe.esam
    )


def test_all_perturbations_on_imagenet_are_those_of_128_samples():
    for name in recipes.names():
        recipe = recipes.get(name)
        if recipe.method != "sgd":
            part = 0.25 if recipe.method == "sam-quarter" else 1
            assert recipe.esam["ascent_fraction"] == part, name
        is_split = recipe.dataset == "imagenet" and recipe.method != "sgd"
        size = recipe.esam.get("micro_batch_size")
        assert size == (128 if is_split else None), name


def test_asam_has_the_rho_of_its_paper_and_perturbs_all():
    esam = recipes.get("cifar100/wrn-28-10/asam").esam
    assert esam == {
        **{"rho": 1.0, "beta": 1.0, "gamma": 1.0, "ascent_fraction": 1.0},
        "adaptive": True,
    }
    sources = recipes.get("cifar100/wrn-28-10/asam").sources
    assert "Kwon" in sources["rho"]
    assert sources["beta"] == sources["adaptive"] == "of the method"


def test_optimizer_equals_pytorch_decay_within_the_gradient():
    """A weight without a loss gradient: the product of many steps."""
    recipe = dataclasses.replace(
        recipes.get("cifar10/resnet18/sam"), learning_rate=0.01
    )
    optimizer = recipe.make_optimizer(150)
    weight = keras.Variable(1.0)
    expected, velocity = 1.0, 0.0
    cosine = keras.optimizers.schedules.CosineDecay(0.01, 150)
    for step in range(150):
        optimizer.apply([keras.ops.zeros(())], [weight])
        velocity = 0.9 * velocity + 1e-3 * expected
        expected -= float(cosine(step)) * velocity
    decayed = 1 - float(weight.numpy())
    assert decayed == pytest.approx(1 - expected, rel=0.15)


def test_learning_rate_falls_to_zero_as_a_cosine():
    optimizer = recipes.get("cifar10/resnet18/sgd").make_optimizer(100)
    schedule = optimizer._learning_rate
    assert float(schedule(0)) == pytest.approx(0.05)
    assert float(schedule(50)) == pytest.approx(0.025)
    assert float(schedule(100)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    "make_copy",
    [copy.deepcopy, lambda recipe: pickle.loads(pickle.dumps(recipe))],
)
def test_recipes_can_be_copied_and_stored(make_copy):
    recipe = recipes.get("imagenet/resnet50/esam")
    assert make_copy(recipe) == recipe
    stored = json.loads(json.dumps(dataclasses.asdict(recipe)))
    assert recipes.Recipe(**stored) == recipe


@pytest.mark.parametrize(
    "name", ["cifar10/resnet50/esam", "imagenet/resnet18/sgd", "esam", 3]
)
def test_unknown_name_is_an_error(name):
    with pytest.raises(ValueError, match="Received: name="):
        recipes.get(name)
