"""A linear model with the mean squared error: all of it in closed form."""

import keras
import numpy as np


class LeastSquares:
    """`y_pred = x @ kernel + bias`, with random weights and data."""

    def __init__(self, num_samples=33, num_inputs=4, regularizer=0.0):
        rng = np.random.default_rng(0)
        self.x = rng.normal(size=(num_samples, num_inputs))
        self.y = rng.normal(size=(num_samples, 1))
        self.weights = rng.normal(size=num_inputs + 1)
        self.sample_weight = rng.uniform(0.5, 2, num_samples)
        self.regularizer = regularizer

    def model(self):
        penalty = keras.regularizers.L2(self.regularizer)
        model = keras.Sequential(
            [
                keras.Input(self.x.shape[1:]),
                keras.layers.Dense(1, kernel_regularizer=penalty),
            ]
        )
        model.set_weights([self.weights[:-1, None], self.weights[-1:]])
        model.compile("sgd", "mse")
        return model

    def loss(self, weights, sample_weight=1.0):
        errors = self.design @ weights - self.y[:, 0]
        penalty = self.regularizer * np.sum(weights[:-1] ** 2)
        return np.mean(sample_weight * errors**2) + penalty

    def gradient(self, weights, sample_weight=1.0):
        errors = sample_weight * (self.design @ weights - self.y[:, 0])
        penalty = 2 * self.regularizer * np.append(weights[:-1], 0)
        return 2 / len(self.x) * self.design.T @ errors + penalty

    def hessian(self):
        return 2 / len(self.x) * self.design.T @ self.design

    @property
    def design(self):
        return np.append(self.x, np.ones((len(self.x), 1)), axis=1)
