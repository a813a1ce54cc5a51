"""What tests need of the backend that Keras runs on, whichever it is."""
import keras
import numpy as np
import pytest

BACKEND = keras.backend.backend()
on_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason=f"is about TensorFlow, this is {BACKEND}")
on_torch = pytest.mark.skipif(BACKEND != "torch", reason=f"is about PyTorch, this is {BACKEND}")


def numpy(x):
    """An array of a tensor; PyTorch's have to leave their gradient behind."""
    return np.asarray(keras.ops.convert_to_numpy(x))


def gradient(function, x):
    """(value, slope) of a function from a float32 array to one number, by the backend's own differentiation; a slope of None where nothing flows back."""
    if BACKEND == "tensorflow":
        import tensorflow as tf
        x = tf.constant(x, "float32")
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        slope = tape.gradient(value, x)
    elif BACKEND == "torch":
        x = keras.ops.convert_to_tensor(x, "float32").requires_grad_(True)
        value = function(x)
        if value.requires_grad:
            value.backward()
        slope = x.grad
    else:
        import jax
        value, slope = jax.value_and_grad(function)(keras.ops.convert_to_tensor(x, "float32"))
        slope = slope if slope.any() else None
    return float(numpy(value)), None if slope is None else numpy(slope)
