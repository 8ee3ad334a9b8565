import ast

from tests import keras_trainer_tests

SOURCE = """
import keras
import numpy as np
from keras.src import testing

import keras_esam


class TestTrainer(testing.TestCase):
    def check(self):
        model = keras.Sequential([keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        logs = model.train_on_batch(
            np.ones((4, 2)), np.ones((4, 1)), return_dict=True
        )
        self.assertEqual(sorted(logs), ["loss"])

    def test_passes(self):
        self.assertIsInstance(keras.Sequential(), keras_esam.ESAMModel)

    def test_recompile(self):
        self.check()

    def test_fit(self):
        self.check()
"""


def test_networks_are_wrapped_and_an_unknown_difference_is_told(
    tmp_path, capsys
):
    path = tmp_path / keras_trainer_tests.SOURCE
    path.parent.mkdir(parents=True)
    path.write_text(SOURCE)
    assert keras_trainer_tests.main([str(tmp_path)]) == 1
    output = capsys.readouterr().out
    # `sharpness` among the logs fails both, and is known of one of them.
    assert "1 passed, 2 failed" in output
    assert "failed: ['fit'], passed: []" in output


def test_layers_that_train_become_models():
    source = "class Model(Trainer, layers.Layer):\n    pass\nModel(3)"
    tree = ast.parse(keras_trainer_tests.changed(source))
    assert ast.unparse(tree.body[-2].bases[0]) == "Trainer"
    assert ast.unparse(tree.body[-1]) == "wrapped(Model(3))"
