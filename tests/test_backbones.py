"Backbones: shapes, parameter counts, stems, weights from elsewhere."
import keras
import numpy as np
import pytest

from signver_kit.backbones import BACKBONES, adapt_stem, build_backbone, load_rgb_weights

# torchvision's published counts less its 1000-class layer
KNOWN = {"resnet18": 11_689_512 - 513_000, "resnet34": 21_797_672 - 513_000, "resnet50": 25_557_032 - 2_049_000,
         "resnet101": 44_549_160 - 2_049_000, "resnet152": 60_192_808 - 2_049_000}
BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}


def run(model, images):
    return np.asarray(keras.ops.convert_to_numpy(model(images, training=False)))


def trainable(model):
    return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


def calculated(name, channels, width):
    "Convolution kernels and two numbers per normalised channel, counted from the papers' tables."
    conv = lambda k, a, b: k * k * a * b + 2 * b
    total, before = conv(7, channels, width), width
    for stage, blocks in enumerate(BLOCKS[name]):
        inner = width * 2**stage
        outer = inner if name in ("resnet18", "resnet34") else 4 * inner
        for number in range(blocks):
            if outer == inner:
                total += conv(3, before, inner) + conv(3, inner, inner)
            else:
                total += conv(1, before, inner) + conv(3, inner, inner) + conv(1, inner, outer)
            if number == 0 and (before != outer or stage > 0):
                total += conv(1, before, outer)
            before = outer
    return total


@pytest.mark.parametrize("name", KNOWN)
def test_parameter_counts_and_maps(name):
    assert calculated(name, 3, 64) == KNOWN[name]
    model = build_backbone(name, (150, 220, 1), width=8)
    assert trainable(model) == calculated(name, 1, 8)
    assert model.output_shape == (None, 5, 7, 64 if name in ("resnet18", "resnet34") else 256)


def test_parameter_counts_at_full_width():
    assert trainable(build_backbone("resnet18", (224, 224, 3))) == 11_176_512
    assert trainable(build_backbone("resnet50", (224, 224, 3))) == 23_508_032
    assert calculated("resnet18", 1, 32) == pytest.approx(2.8e6, rel=0.01)
    convolutions = 11 * 11 * 96 + 25 * 96 * 256 + 9 * 256 * 384 + 9 * 384 * 384 + 9 * 384 * 256
    assert trainable(build_backbone("signet")) == convolutions + 2 * (96 + 256 + 384 + 384 + 256)


def test_signet_map_is_the_papers():
    assert build_backbone("signet").output_shape == (None, 3, 5, 256)  # 3840 numbers before the paper's first dense layer
    assert build_backbone("signet", (67, 67, 1), width=2).output_shape == (None, 1, 1, 8)


def test_any_size_and_channels_first_configuration():
    model = build_backbone("resnet18", (None, None, 1), width=4)
    for size in ((1, 1), (33, 70)):
        out = run(model, np.zeros((1, *size, 1), "float32"))
        assert out.shape == (1, -(-size[0] // 32), -(-size[1] // 32), 32)
    before = keras.config.image_data_format()
    try:
        keras.config.set_image_data_format("channels_first")
        assert build_backbone("resnet18", (64, 96, 1), width=4).output_shape == (None, 2, 3, 32)
        assert build_backbone("signet", (96, 96, 1), width=4).output_shape[-1] == 16
    finally:
        keras.config.set_image_data_format(before)


def test_normalisation_and_start():
    keras.utils.set_random_seed(1)
    model = build_backbone("resnet18", (64, 64, 1), width=32)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            assert layer.momentum == 0.9 and layer.epsilon == 1e-5
        if isinstance(layer, keras.layers.Conv2D):
            assert not layer.use_bias
    kernel = model.get_layer("layer3_1_conv2").get_weights()[0]
    assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * 128)), rel=0.02)
    assert not np.array_equal(kernel, model.get_layer("layer3_1_conv1").get_weights()[0])  # each layer draws its own
    keras.utils.set_random_seed(1)
    assert np.array_equal(kernel, build_backbone("resnet18", (64, 64, 1), width=32).get_layer("layer3_1_conv2").get_weights()[0])


@pytest.mark.parametrize("name", ["resnet18", "signet"])
def test_mixed_bfloat16_forward_and_backward(name):
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        backbone = build_backbone(name, (70, 80, 1), width=4)
        assert backbone.output.dtype == "bfloat16"
        model = keras.Sequential([backbone, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2, dtype="float32")])
        model.compile("sgd", keras.losses.MeanSquaredError(), run_eagerly=True, jit_compile=False)
        assert np.isfinite(model.train_on_batch(np.random.default_rng(0).random((4, 70, 80, 1), "float32"), np.ones((4, 2))))
        assert all(weight.dtype == "float32" for weight in model.weights)
    finally:
        keras.config.set_dtype_policy(before)


def test_adapt_stem_on_grey_images():
    random = np.random.default_rng(0)
    kernel, grey = random.normal(size=(7, 7, 3, 8)).astype("float32"), random.random((2, 21, 30, 1), "float32")
    conv = lambda image, weights: np.asarray(keras.ops.convert_to_numpy(keras.ops.conv(image, weights, strides=2, padding="valid")))
    rgb = conv(np.repeat(grey, 3, axis=-1), kernel)
    assert np.allclose(3 * conv(grey, adapt_stem(kernel)), rgb, atol=1e-4)
    assert np.allclose(conv(grey, adapt_stem(kernel, "sum")), rgb, atol=1e-4)
    assert adapt_stem(kernel).dtype == kernel.dtype
    assert np.allclose(adapt_stem(np.repeat(kernel[:, :, :1], 3, axis=2)), kernel[:, :, :1], rtol=1e-6)


def trained_like(model, seed=0):
    "Random weights and random running statistics, as after a training."
    random = np.random.default_rng(seed)
    model.set_weights([random.uniform(0.5, 1.5, w.shape) if w.ndim == 1 else w for w in model.get_weights()])
    return model


@pytest.mark.parametrize("name, how, as_list", [("resnet18", "mean", False), ("resnet18", "sum", True), ("resnet50", "mean", True),
                                                ("signet", "mean", False), ("signet", "sum", False)])
def test_loaded_network_computes_what_the_rgb_one_does_on_grey(name, how, as_list):
    three = trained_like(build_backbone(name, (70, 90, 3), width=4))
    one = load_rgb_weights(build_backbone(name, (70, 90, 1), width=4), three.get_weights() if as_list else three, how)
    grey = np.random.default_rng(1).random((3, 70, 90, 1), "float32")
    expected = run(three, np.repeat(grey, 3, axis=-1))
    assert np.abs(expected).max() > 1e-3
    assert np.allclose(run(one, grey), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def torch_names(model):
    "A model's weights as PyTorch would name and lay them out."
    names = {}
    for layer in model.layers:
        key = layer.name.replace("_", ".")
        if isinstance(layer, keras.layers.Conv2D):
            names[f"{key}.weight"] = layer.get_weights()[0].transpose(3, 2, 0, 1)
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            names.update({f"{key}.weight": gamma, f"{key}.bias": beta, f"{key}.running_mean": mean, f"{key}.running_var": variance,
                          f"{key}.num_batches_tracked": np.array(7)})
    return {**names, "fc.weight": np.zeros((10, 32)), "fc.bias": np.zeros(10)}


def test_pytorch_names():
    # the names of torchvision's resnet18 and resnet50, from its documentation
    names = torch_names(build_backbone("resnet18", (64, 64, 3), width=4))
    assert {"conv1.weight", "bn1.running_var", "layer1.0.conv1.weight", "layer2.0.downsample.0.weight", "layer2.0.downsample.1.bias",
            "layer4.1.bn2.weight"} <= set(names)
    assert "layer1.0.downsample.0.weight" not in names
    assert len(names) == 122  # as many entries as torchvision's state_dict of a resnet18
    assert "layer1.0.downsample.0.weight" in torch_names(build_backbone("resnet50", (64, 64, 3), width=4))
    three = trained_like(build_backbone("resnet18", (64, 64, 3), width=4))
    one, other = (load_rgb_weights(build_backbone("resnet18", (64, 64, 1), width=4), w) for w in (three, torch_names(three)))
    assert all(np.array_equal(a, b) for a, b in zip(one.get_weights(), other.get_weights()))
    again = load_rgb_weights(build_backbone("resnet18", (64, 64, 3), width=4), torch_names(three))  # three channels stay three
    assert all(np.array_equal(a, b) for a, b in zip(three.get_weights(), again.get_weights()))


def test_wrong_weights_change_nothing():
    model = build_backbone("resnet18", (64, 64, 1), width=4)
    before = model.get_weights()
    for weights in (build_backbone("resnet18", (64, 64, 3), width=8), build_backbone("resnet34", (64, 64, 3), width=4), before[:-1], [],
                    {"conv1.weight": np.zeros((4, 3, 7, 7))}):
        with pytest.raises(ValueError, match="resnet18 needs"):
            load_rgb_weights(model, weights)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))


def test_weights_file_round_trip(tmp_path):
    model = trained_like(build_backbone("resnet18", (64, 64, 1), width=4))
    model.save_weights(tmp_path / "a.weights.h5")
    other = build_backbone("resnet18", (64, 64, 1), width=4)
    other.load_weights(tmp_path / "a.weights.h5")
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), other.get_weights()))


@pytest.mark.parametrize("arguments, said", [
    (("resnet19",), "resnet18, resnet34.*got 'resnet19'"),
    ((None,), "got None"),
    (("resnet18", (150, 220)), r"\(height, width, channels\)"),
    (("resnet18", (150, 220, None)), "channels"),
    (("resnet18", (0, 220, 1)), "at least 1x1"),
    (("signet", (66, 220, 1)), "at least 67x67"),
    (("resnet18", (150, 220, 1), 0), "width"),
    (("resnet18", (150, 220, 1), 32.5), "width"),
])
def test_refusals_say_what_is_wrong(arguments, said):
    with pytest.raises(ValueError, match=said):
        build_backbone(*arguments)


@pytest.mark.parametrize("kernel, how", [(np.zeros((7, 7, 1, 8)), "mean"), (np.zeros((64, 3, 7, 7)), "mean"), (np.zeros((7, 7, 3, 8)), "max")])
def test_adapt_stem_refuses(kernel, how):
    with pytest.raises(ValueError):
        adapt_stem(kernel, how)


def test_list_of_names():
    assert BACKBONES == ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "signet")
