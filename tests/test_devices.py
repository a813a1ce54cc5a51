"Devices: what is found, what is advised, seeds, the environment stamp."
import json
import os
import platform
import random
import re
import subprocess
import sys
import textwrap
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signver_kit import devices
from signver_kit.devices import (Device, choose_device, choose_distribution, choose_precision, describe, environment, find_devices, generator_states,
                                 jit_compile_for, set_generator_states, set_seed, start_device, tf_config_from_mpi)

from backends import BACKEND, numpy, on_torch
from conftest import MANY_THREADS


def test_import_needs_no_framework():
    code = "import sys, signver_kit.devices; assert not {'keras', 'tensorflow', 'jax', 'torch', 'numpy'} & set(sys.modules), sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_this_machine():
    found = find_devices()
    cpu = [device for device in found if device.kind == "cpu"]
    assert len(cpu) == 1 and cpu[0].usable and cpu[0].name and 1 <= cpu[0].cores <= os.cpu_count()
    assert choose_device("cpu") == cpu[0] and choose_device().usable
    text = describe()
    assert cpu[0].name in text and choose_precision() in text and "Keras" in text


def test_cpu_of_other_machines(tmp_path):
    intel = tmp_path / "intel"
    intel.write_text("processor\t: 0\nmodel name\t: Xeon A\nflags\t\t: fpu avx2 avx512f avx512_bf16 amx_bf16 amx_tile\n\n"
                     "processor\t: 1\nmodel name\t: Xeon B\nflags\t\t: fpu\n")
    cpu = devices._cpu(intel)
    assert cpu.name == "Xeon A" and cpu.flags == ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile")
    arm = tmp_path / "arm"
    arm.write_text("processor\t: 0\nFeatures\t: fp asimd sve bf16\n")
    assert devices._cpu(arm).flags == ("asimd", "bf16", "sve")
    assert devices._cpu(tmp_path / "absent").name


@pytest.mark.parametrize("text, limit", [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None), ("", None), ("garbage", None)])
def test_cores_respect_a_containers_quota(tmp_path, text, limit):
    quota = tmp_path / "cpu.max"
    quota.write_text(text)
    assert devices._cores(quota) == (limit or devices._cores(tmp_path / "absent"))


def make_cards(folder, kinds, driver="1.14.0-493\n"):
    """A folder as /sys/class/accel: number -> type, None for a device that tells no type."""
    for number, kind in kinds.items():
        device = folder / f"accel{number}" / "device"
        device.mkdir(parents=True)
        if kind:
            (device / "device_type").write_text(kind)
        if driver:
            (device / "driver_ver").write_text(driver)
    return folder


def habana(tmp_path, *plug_ins):
    """A module specification as importlib finds one for Habana's namespace package with these plug-ins."""
    for name in plug_ins:
        (tmp_path / "habana_frameworks" / name).mkdir(parents=True, exist_ok=True)
    return lambda name: types.SimpleNamespace(submodule_search_locations=[str(tmp_path / "habana_frameworks")])


def test_gaudi_from_the_kernels_listing(tmp_path, monkeypatch):
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: None)  # without Habana's framework
    monkeypatch.setattr(devices, "_output", lambda *command: None)
    root = make_cards(tmp_path, {0: "GAUDI2\n", 10: "GAUDI3\n", 2: "another maker's NPU\n", 3: None})
    found = devices._hpus("tensorflow", root)
    assert [(card.name, card.index, card.driver, card.memory) for card in found] == [("GAUDI2", 0, "1.14.0-493", None), ("GAUDI3", 1, "1.14.0-493", None)]
    assert all(not card.usable and "signver_kit[gaudi]" in card.remedy for card in found)
    assert devices._hpus("tensorflow", tmp_path / "absent") == []


@pytest.mark.parametrize("backend, installed, usable, remedy", [
    ("tensorflow", ["tensorflow"], True, ""), ("torch", ["torch"], True, ""), ("torch", ["tensorflow"], False, "PyTorch container"),
    ("tensorflow", ["torch"], False, "signver_kit[gaudi]"), ("jax", ["tensorflow", "torch"], False, "KERAS_BACKEND"), (None, ["torch"], False, "KERAS_BACKEND")])
def test_a_gaudi_card_needs_the_backends_plug_in(tmp_path, monkeypatch, backend, installed, usable, remedy):
    monkeypatch.setattr(devices.importlib.util, "find_spec", habana(tmp_path, *installed))
    card, = devices._hpus(backend, make_cards(tmp_path / "sys", {0: "GAUDI"}, driver=None))
    assert card.usable is usable and remedy in card.remedy and card.driver is None
    assert ("not usable" in str(card)) is not usable


def test_gaudi_memory_from_hl_smi(tmp_path, monkeypatch):
    monkeypatch.setattr(devices.importlib.util, "find_spec", habana(tmp_path, "torch"))
    root = make_cards(tmp_path / "sys", {0: "GAUDI", 1: "GAUDI"})
    monkeypatch.setattr(devices, "_output", lambda *command: "32768" if command[0] == "hl-smi" else None)  # it tells of one card only
    first, second = devices._hpus("torch", root)
    assert (first.memory, second.memory) == (32.0, None) and "32.0 GiB, driver 1.14.0-493" in str(first)


def test_gpu_that_only_the_driver_sees(monkeypatch):
    listing = "NVIDIA H200, 9.0, 143771, 550.90.07\nOld Card, [N/A], [N/A], 390.1\nnonsense\n"
    monkeypatch.setattr(devices, "_output", lambda *command: listing if command[0] == "nvidia-smi" else None)
    monkeypatch.setattr(devices, "_backend_gpus", lambda backend: [])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    found = devices._gpus("tensorflow")
    assert [(gpu.name, gpu.capability, gpu.usable, gpu.driver) for gpu in found] == [("NVIDIA H200", 9.0, False, "550.90.07"), ("Old Card", None, False, "390.1")]
    assert found[0].memory == pytest.approx(140.4, abs=0.01) and found[1].memory is None and "140.4 GiB, driver 550.90.07" in str(found[0])
    assert find_devices()[0].kind == "cpu"  # what cannot be used comes last
    with pytest.raises(RuntimeError, match="NVIDIA H200 is here, but.*install GPU support"):
        choose_device("gpu")
    assert [devices._gpus(backend)[0].remedy.partition("support: ")[2] for backend in ("jax", "tensorflow", None)] == ["pip install 'jax[cuda12]'"] + ["pip install 'signver_kit[gpu]'"] * 2
    assert "no GPU" not in describe() and "not usable" in describe()
    monkeypatch.setattr(devices, "_backend_gpus", lambda backend: [("NVIDIA H200", 9.0), ("Unheard of", None)])
    assert choose_device().kind == "gpu" and choose_device("gpu").usable and choose_precision() == "mixed_bfloat16"
    assert [(gpu.memory and round(gpu.memory), gpu.driver) for gpu in devices._gpus("jax")] == [(140, "550.90.07"), (None, None)]


def test_a_hidden_gpu_is_no_missing_support(monkeypatch):
    monkeypatch.setattr(devices, "_output", lambda *command: "NVIDIA H200, 9.0, 143771, 550.90.07")
    monkeypatch.setattr(devices, "_backend_gpus", lambda backend: [])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices._gpus("torch")[0].remedy == "CUDA_VISIBLE_DEVICES hides it: unset that variable"


def test_gpus_of_each_backend(monkeypatch):
    """What the backends answer, from stand-ins for them."""
    torch = types.SimpleNamespace(cuda=types.SimpleNamespace(device_count=lambda: 2, get_device_name="card {}".format, get_device_capability=lambda i: (8, i)))
    jax = types.SimpleNamespace(devices=lambda: [types.SimpleNamespace(platform="gpu", device_kind="H200", compute_capability="9.0"),
                                                 types.SimpleNamespace(platform="gpu", device_kind="other"), types.SimpleNamespace(platform="cpu")])
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "jax", jax)
    assert devices._backend_gpus("torch") == [("card 0", 8.0), ("card 1", 8.1)]
    assert devices._backend_gpus("jax") == [("H200", 9.0), ("other", None)]
    assert devices._backend_gpus(None) == []


@pytest.mark.parametrize("answer, folder, expected", [
    (None, False, ["nvidia-smi is not installed", "so there is no driver"]), ("", True, ["no GPU: nvidia-smi lists none", "no Gaudi: .* lists none"])])
def test_what_is_missing_is_said(monkeypatch, tmp_path, answer, folder, expected):
    monkeypatch.setattr(devices, "_output", lambda *command: answer)
    monkeypatch.setattr(devices, "_backend_gpus", lambda backend: [])
    monkeypatch.setattr(devices, "ACCELERATORS", str(tmp_path if folder else tmp_path / "absent"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    text = describe()
    for words in expected:
        assert re.search(words, text), text
    assert "CUDA_VISIBLE_DEVICES" not in text and "jax" in text and "torch" in text and "distribution none" in text
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES hides all" in describe()


@pytest.mark.parametrize("wanted, installed, line", [
    ("torch", {"keras": "3.15.1", "tensorflow": "2.21"}, r"Keras is to run on torch, which is not installed here: set KERAS_BACKEND=tensorflow, which is, or pip install 'signver_kit\[torch\]'"),
    ("jax", {"keras": "3.15.1"}, r"on jax, which is not installed here: pip install 'signver_kit\[jax\]'"),
    ("torch", {"keras": "3.15.1", "torch": "2.13.0"}, "on torch, which is installed but cannot be imported"),
    ("torch", {"torch": "2.13.0"}, "Keras is not installed: pip install signver_kit")])
def test_a_backend_that_is_not_there(monkeypatch, wanted, installed, line):
    monkeypatch.setattr(devices, "_version", lambda *packages: next((installed[name] for name in packages if name in installed), None))
    assert devices.missing_backend() is None
    monkeypatch.setattr(devices, "_backend", lambda: None)
    monkeypatch.setenv("KERAS_BACKEND", wanted)
    assert re.search(line, devices.missing_backend()) and re.search(line, describe())
    from signver_kit.console import start_quietly
    with pytest.raises(devices.DeviceError, match=line):
        start_quietly()


@pytest.mark.parametrize("kind, remedy", [("gpu", "nvidia-smi"), ("hpu", "Gaudi")])
def test_absent_device(monkeypatch, kind, remedy):
    monkeypatch.setattr(devices, "find_devices", lambda: [Device("cpu", "x", cores=1)])
    with pytest.raises(RuntimeError, match=remedy):
        choose_device(kind)


def test_unknown_kind():
    with pytest.raises(ValueError, match="'tpu'"):
        choose_device("tpu")


@pytest.mark.parametrize("device, backend, onednn, policy", [
    (Device("cpu", "x", flags=("avx512_bf16",)), "tensorflow", None, "mixed_bfloat16"),
    (Device("cpu", "x", flags=("amx_bf16",)), "tensorflow", "1", "mixed_bfloat16"),
    (Device("cpu", "x", flags=("avx512_bf16",)), "tensorflow", "0", "float32"),
    (Device("cpu", "x", flags=("avx512_bf16",)), "jax", None, "float32"),
    (Device("cpu", "x", flags=("avx512f",)), "tensorflow", None, "float32"),
    (Device("gpu", "x", capability=8.0), "torch", None, "mixed_bfloat16"),
    (Device("gpu", "x", capability=7.5), "tensorflow", None, "float32"),
    (Device("gpu", "x"), "tensorflow", None, "float32"),
    (Device("hpu", "x"), "torch", None, "mixed_bfloat16"),
])
def test_precision(monkeypatch, device, backend, onednn, policy):
    monkeypatch.setattr(devices, "_backend", lambda: backend)
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    if onednn is not None:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", onednn)
    assert choose_precision(device) == policy


@pytest.mark.parametrize("kind, backend, expected", [("cpu", "tensorflow", False), ("hpu", "tensorflow", False), ("hpu", "torch", False),
                                                     ("cpu", "torch", False), ("gpu", "tensorflow", "auto"), ("cpu", "jax", True)])
def test_jit_compile(monkeypatch, kind, backend, expected):
    monkeypatch.setattr(devices, "_backend", lambda: backend)
    assert jit_compile_for(Device(kind, "x")) is expected or jit_compile_for(Device(kind, "x")) == expected == "auto"


def test_no_half_precision_twice_on_gaudi(monkeypatch):
    monkeypatch.setenv("TF_BF16_CONVERSION", "full")
    assert choose_precision(Device("hpu", "GAUDI")) == "float32"
    with pytest.raises(ValueError, match="mixed_bfloat16 and TF_BF16_CONVERSION=full: unset"):
        devices._refuse_two_conversions("mixed_bfloat16")
    devices._refuse_two_conversions("float32")
    devices._refuse_two_conversions(None)  # the current policy
    monkeypatch.setenv("TF_BF16_CONVERSION", "0")
    devices._refuse_two_conversions("mixed_bfloat16")


# ---- several devices ----

CLUSTER = [name for pair in devices.RANKS for name in pair] + ["TF_CONFIG"]


@pytest.fixture
def alone(monkeypatch):
    """An environment without ranks and cluster; a function that sets some, and the backend."""
    for name in CLUSTER:
        monkeypatch.delenv(name, raising=False)

    def surroundings(backend="tensorflow", gpus=0, **variables):
        monkeypatch.setattr(devices, "_backend", lambda: backend)
        monkeypatch.setattr(devices, "find_devices", lambda: [*(Device("gpu", "x", i) for i in range(gpus)), Device("gpu", "old", usable=False), Device("cpu", "x")])
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
    return surroundings


TWO = tf_config_from_mpi({"PMI_RANK": "0", "PMI_SIZE": "2"})


@pytest.mark.parametrize("kind, backend, gpus, variables, expected", [
    ("cpu", "tensorflow", 0, {}, "none"),
    ("cpu", "tensorflow", 0, {"TF_CONFIG": TWO}, "multi_worker"),
    ("cpu", "tensorflow", 0, {"TF_CONFIG": " "}, "none"),
    ("cpu", "tensorflow", 0, {"TF_CONFIG": '{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}}'}, "multi_worker"),
    ("cpu", "tensorflow", 0, {"TF_CONFIG": '{"cluster": {"worker": ["b:1"]}}', "PMI_RANK": "0", "PMI_SIZE": "2"}, "none"),  # TF_CONFIG is asked first
    ("gpu", "tensorflow", 1, {}, "none"), ("gpu", "tensorflow", 2, {}, "mirrored"), ("gpu", "jax", 2, {}, "mirrored"), ("gpu", "torch", 2, {}, "none"),
    ("gpu", "tensorflow", 2, {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, "multi_worker"),
    ("hpu", "tensorflow", 0, {}, "none"), ("hpu", "torch", 0, {"PMI_RANK": "0", "PMI_SIZE": "1"}, "none"),
    ("hpu", "tensorflow", 0, {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "8"}, "hpu"),
    ("hpu", "tensorflow", 0, {"PMI_RANK": "1", "PMI_SIZE": "8"}, "hpu"),
])
def test_distribution(alone, kind, backend, gpus, variables, expected):
    alone(backend, gpus, **variables)
    assert choose_distribution(Device(kind, "x")) == expected


def test_distribution_of_the_best_device(alone):
    alone(gpus=4)
    assert choose_distribution() == "mirrored" and choose_distribution(workers=1) == "mirrored" and choose_distribution(workers=np.int64(2)) == "multi_worker"


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_several_processes_need_tensorflow(alone, backend):
    alone(backend, PMI_RANK="0", PMI_SIZE="8")
    with pytest.raises(ValueError, match=f"8 under {backend}: set KERAS_BACKEND=tensorflow"):
        choose_distribution(Device("hpu", "x"))


@pytest.mark.parametrize("workers", [0, -1, 1.5, "2", True])
def test_refused_numbers_of_workers(alone, workers):
    alone()
    with pytest.raises(ValueError, match="workers must be a whole number from 1 up"):
        choose_distribution(Device("cpu", "x"), workers)


@pytest.mark.parametrize("text", ["nonsense", "[]", '{"cluster": 3}', '{"cluster": {"worker": 3}}'])
def test_refused_tf_config(alone, text):
    alone(TF_CONFIG=text)
    with pytest.raises(ValueError, match="TF_CONFIG must be JSON such as .*localhost:7850"):
        choose_distribution(Device("cpu", "x"))


@given(st.integers(1, 4), st.integers(1, 8), st.data())
def test_tf_config_of_all_ranks_is_one_cluster(machines, each, data):
    hosts, size = [f"host{i}" for i in range(machines)], machines * each
    names = data.draw(st.sampled_from(devices.RANKS))
    configs = [json.loads(tf_config_from_mpi(dict(zip(names, (str(rank), str(size)))), hosts)) for rank in range(size)]
    workers = configs[0]["cluster"]["worker"]
    assert all(config["cluster"] == configs[0]["cluster"] for config in configs)
    assert [config["task"] for config in configs] == [{"type": "worker", "index": rank} for rank in range(size)]
    assert len(set(workers)) == size and [worker.split(":")[0] for worker in workers] == [host for host in hosts for _ in range(each)]


def test_tf_config_of_this_process(alone):
    alone(OMPI_COMM_WORLD_RANK="1", OMPI_COMM_WORLD_SIZE="2")
    assert json.loads(tf_config_from_mpi(port=5000)) == {"cluster": {"worker": ["localhost:5000", "localhost:5001"]}, "task": {"type": "worker", "index": 1}}
    assert json.loads(tf_config_from_mpi(hosts="node"))["cluster"]["worker"] == ["node:7850", "node:7851"]


@pytest.mark.parametrize("environ, hosts, words", [
    ({}, ["a"], "none are set: start the command with mpirun"),
    ({"PMI_RANK": "0"}, ["a"], "none are set"),
    ({"PMI_RANK": "2", "PMI_SIZE": "2"}, ["a"], "0 ≤ PMI_RANK < PMI_SIZE, got '2' and '2'"),
    ({"PMI_RANK": "-1", "PMI_SIZE": "2"}, ["a"], "got '-1'"),
    ({"OMPI_COMM_WORLD_RANK": "one", "OMPI_COMM_WORLD_SIZE": "2"}, ["a"], "got 'one'"),
    ({"PMI_RANK": "0", "PMI_SIZE": "3"}, ["a", "b"], "3 processes for 2 machines"),
    ({"PMI_RANK": "0", "PMI_SIZE": "3"}, [], "3 processes for 0 machines"),
])
def test_refused_ranks(environ, hosts, words):
    with pytest.raises(ValueError, match=words):
        tf_config_from_mpi(environ, hosts)


# ---- making a device ready; Habana's libraries and the other backends are stand-ins here ----

@pytest.fixture
def a_card(monkeypatch):
    """A function: from now on there is a usable Gaudi card and this backend, and these modules."""
    def set_up(backend, **modules):
        monkeypatch.setattr(devices, "_backend", lambda: backend)
        monkeypatch.setattr(devices, "find_devices", lambda: [Device("hpu", "GAUDI"), Device("cpu", "x")])
        real = devices.importlib.import_module
        modules = {name.replace("__", "."): module for name, module in modules.items()}
        monkeypatch.setattr(devices.importlib, "import_module", lambda name: modules[name] if name in modules else real(name))
    for name in ("TF_BF16_CONVERSION", "TF_RECIPE_CACHE_PATH", "KERAS_TORCH_DEVICE"):
        monkeypatch.setenv(name, "")  # so that what is set here is taken back
        monkeypatch.delenv(name)
    return set_up


def fake_tensorflow(monkeypatch, listed=("HPU",)):
    config = types.SimpleNamespace(list_physical_devices=lambda kind: [kind] if kind in listed else [])
    monkeypatch.setitem(sys.modules, "tensorflow", types.SimpleNamespace(config=config))


def test_gaudi_under_tensorflow(a_card, monkeypatch):
    base_conv, steps = types.SimpleNamespace(BaseConv=object()), []
    plug_in = types.SimpleNamespace(load_habana_module=lambda: steps.append((base_conv.Conv, os.environ["TF_RECIPE_CACHE_PATH"])))
    a_card("tensorflow", keras__src__layers__convolutional__base_conv=base_conv, habana_frameworks__tensorflow=plug_in)
    fake_tensorflow(monkeypatch)
    assert start_device("hpu").kind == start_device().kind == "hpu"
    assert steps[0][0] is base_conv.BaseConv and "gaudi-recipes" in steps[0][1]  # both set before the plug-in is loaded
    monkeypatch.setenv("TF_RECIPE_CACHE_PATH", "/elsewhere")
    start_device("hpu")
    assert steps[-1][1] == "/elsewhere"
    monkeypatch.setenv("TF_BF16_CONVERSION", "full")
    count = len(steps)
    with pytest.raises(ValueError, match="not from both"):
        start_device("hpu", policy="mixed_bfloat16")
    assert len(steps) == count
    start_device("hpu", policy="float32")


def test_keras_has_the_class_that_habana_needs():
    from keras.src.layers.convolutional import base_conv
    assert issubclass(base_conv.BaseConv, object) and base_conv.BaseConv.__name__ == "BaseConv"


def test_a_loaded_plug_in_without_a_device_is_an_error(a_card, monkeypatch):
    a_card("tensorflow", keras__src__layers__convolutional__base_conv=types.SimpleNamespace(BaseConv=None),
           habana_frameworks__tensorflow=types.SimpleNamespace(load_habana_module=lambda: None))
    fake_tensorflow(monkeypatch, listed=())
    with pytest.raises(RuntimeError, match="lists no HPU.*hl-smi"):
        start_device("hpu")


class FakeRandom:
    """Keras's random module for torch, as far as the shim touches it, and Habana's."""

    def __init__(self, device):
        self.device, self.seeds, self.generators = device, [], []
        self.torch_seed_generator = lambda seed: self.generators.append(seed) or "generator"

    def get_device(self):
        return self.device

    def draw_seed(self, seed):
        return np.array([seed, 2**32 - 1], np.int64)

    def manual_seed(self, seed):
        self.seeds.append(seed)


def test_gaudi_under_torch(a_card):
    random_, core = FakeRandom("hpu:0"), types.SimpleNamespace(DEFAULT_DEVICE="cpu")
    a_card("torch", habana_frameworks__torch__core=None, habana_frameworks__torch__hpu__random=random_,
           keras__src__backend__torch__core=core, keras__src__backend__torch__random=random_)
    assert start_device("hpu").kind == "hpu" and core.DEFAULT_DEVICE == "hpu" == os.environ["KERAS_TORCH_DEVICE"]
    assert random_.torch_seed_generator(5) is None and random_.seeds == [4] and not random_.generators  # within 32 bits
    shim = random_.torch_seed_generator
    start_device("hpu")
    assert random_.torch_seed_generator is shim  # put in once
    random_.device = "cpu"
    assert shim(6) == "generator" and random_.generators == [6] and len(random_.seeds) == 1


@on_torch
def test_keras_draws_the_same_through_a_cards_own_state(monkeypatch):
    """The shim under the real Keras: its draws on a device that calls itself hpu, and is PyTorch's CPU, whose own state stands in for the card's."""
    import keras
    import torch
    keras_random = devices.importlib.import_module("keras.src.backend.torch.random")

    class Card(str):
        def __str__(self):
            return "hpu:0"

    def draws():
        random_, seeds = keras.random, keras.random.SeedGenerator(7)
        x = random_.normal((40, 3), seed=1)
        made = [x, random_.uniform((5,), seed=seeds), random_.truncated_normal((5,), seed=2), random_.randint((9,), 0, 100, seed=seeds), random_.shuffle(x, seed=3),
                random_.categorical(x, 4, seed=4), keras.layers.Dropout(0.5, seed=5)(x, training=True), keras.initializers.HeNormal(seed=6)((3, 3, 1, 4))]
        return [numpy(one) for one in made] + [numpy(seeds.state)]

    expected, states = draws(), generator_states()
    asked = []
    monkeypatch.setattr(keras_random, "torch_seed_generator", keras_random.torch_seed_generator)  # so that the shim is taken out again
    monkeypatch.setattr(keras_random, "get_device", lambda: Card("cpu"))
    monkeypatch.setattr(torch, "Generator", lambda device: pytest.fail("a card has no torch.Generator"))
    devices._seed_through(keras_random, types.SimpleNamespace(manual_seed=lambda seed: asked.append(seed) or torch.manual_seed(seed)))
    found = draws()
    set_generator_states(states)
    assert len(asked) == 8 and all(np.array_equal(one, other) for one, other in zip(expected, found, strict=True))


@on_torch
def test_a_generator_goes_on_where_it_stood(monkeypatch):
    import keras
    import torch
    dropout, x = keras.layers.Dropout(0.5), np.ones((4, 50), "float32")
    states = generator_states()
    first, second = (numpy(dropout(x, training=True)) for _ in range(2))
    set_generator_states(states)
    assert set(states) == {"cpu"} and np.array_equal(first, numpy(dropout(x, training=True))) and not np.array_equal(first, second)
    # a card's as well, where Keras computes on one
    told = []
    card = types.SimpleNamespace(get_rng_state=lambda: torch.tensor([1, 2], dtype=torch.uint8), set_rng_state=lambda state: told.append(state.tolist()))
    monkeypatch.setattr(torch, "hpu", card, raising=False)
    monkeypatch.setattr(devices.importlib.import_module("keras.src.backend.torch.core"), "get_device", lambda: "hpu:0")
    states = generator_states()
    assert set(states) == {"cpu", "hpu"} and states["hpu"].tolist() == [1, 2]
    set_generator_states({"hpu": states["hpu"], "cuda": states["cpu"]})
    assert told == [[1, 2]]


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch has some of its own")
def test_other_backends_keep_their_seeds_in_variables():
    set_generator_states({"cpu": np.zeros(3, np.uint8)})           # a checkpoint that was written under PyTorch
    assert generator_states() == {}


def test_gaudi_under_torch_by_number(a_card, monkeypatch):
    core = types.SimpleNamespace()
    a_card("torch", habana_frameworks__torch__core=None, habana_frameworks__torch__hpu__random=FakeRandom("hpu"),
           keras__src__backend__torch__core=core, keras__src__backend__torch__random=FakeRandom("hpu"))
    monkeypatch.setenv("KERAS_TORCH_DEVICE", "hpu:3")
    start_device("hpu")
    assert core.DEFAULT_DEVICE == "hpu:3"
    monkeypatch.setenv("KERAS_TORCH_DEVICE", "cuda")
    with pytest.raises(ValueError, match="got 'cuda': unset it"):
        start_device("hpu")


def test_nothing_of_habanas_is_loaded_without_a_card(monkeypatch):
    monkeypatch.setattr(devices, "_hpus", lambda backend: [])
    real = devices.importlib.import_module
    monkeypatch.setattr(devices.importlib, "import_module", lambda name, *more: pytest.fail(f"{name} was loaded") if "habana" in name else real(name, *more))
    with pytest.raises(RuntimeError, match="hpu was asked for, but no Gaudi card is visible"):
        start_device("hpu")
    assert start_device().kind in ("cpu", "gpu")
    monkeypatch.setattr(devices, "_hpus", lambda backend: [Device("hpu", "GAUDI", usable=False, remedy="install it")])
    with pytest.raises(RuntimeError, match="GAUDI is here, but cannot be used: install it"):
        start_device("hpu")


def test_the_cpu_of_a_machine_with_a_gpu(monkeypatch):
    hidden = []
    config = types.SimpleNamespace(set_visible_devices=lambda devices, kind: hidden.append((devices, kind)))
    monkeypatch.setattr(devices, "choose_device", lambda kind: Device("cpu", "x"))
    monkeypatch.setitem(sys.modules, "tensorflow", types.SimpleNamespace(config=config))
    monkeypatch.setattr(devices, "_backend", lambda: "tensorflow")
    start_device("cpu")
    assert hidden == [([], "GPU")]

    def too_late(devices, kind):
        raise RuntimeError("Visible devices cannot be modified after being initialized")
    config.set_visible_devices = too_late
    with pytest.raises(RuntimeError, match="call start_device at the start"):
        start_device("cpu")
    start_device()  # the best device happens to be the CPU: nothing to hide

    updates = {}
    monkeypatch.setitem(sys.modules, "jax", types.SimpleNamespace(config=types.SimpleNamespace(update=updates.__setitem__), devices=lambda kind: [kind]))
    monkeypatch.setattr(devices, "_backend", lambda: "jax")
    start_device("cpu")
    assert updates == {"jax_default_device": "cpu"}

    core = types.SimpleNamespace()
    monkeypatch.setattr(devices.importlib, "import_module", {"keras.src.backend.torch.core": core}.__getitem__)
    monkeypatch.setattr(devices, "_backend", lambda: "torch")
    monkeypatch.setenv("KERAS_TORCH_DEVICE", "cuda")
    start_device("cpu")
    assert core.DEFAULT_DEVICE == os.environ["KERAS_TORCH_DEVICE"] == "cpu"


def test_asking_for_gaudi_ends_a_process_with_one_clear_line():
    """In a process of its own, as a command would: an error, not an abort."""
    done = subprocess.run([sys.executable, "-c", "from signver_kit.devices import start_device; start_device('hpu')"], capture_output=True, text=True)
    if os.path.isdir(devices.ACCELERATORS):
        pytest.skip("this machine has accelerators")
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("signver_kit.devices.DeviceError: hpu was asked for, but no Gaudi card is visible")


def test_seed_repeats_all_three_sources():
    import keras
    draw = lambda: (random.random(), np.random.rand(), float(keras.initializers.RandomNormal()((1,))[0]))
    set_seed(7)
    first, second = draw(), draw()
    set_seed(np.int64(7))
    assert (draw(), draw()) == (first, second) and first != second
    set_seed(8)
    assert not set(draw()) & set(first)


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, "1", None, True])
def test_refused_seeds(seed):
    with pytest.raises(ValueError, match="seed"):
        set_seed(seed)


def test_determinism_can_be_asked_for():
    # in a process of its own: it cannot be taken back
    code = """
        import numpy as np, keras
        from signver_kit.devices import set_seed
        def train():
            set_seed(1, deterministic=True)
            model = keras.Sequential([keras.layers.Input((8, 8, 1)), keras.layers.Conv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(1)])
            model.compile("sgd", "mse", jit_compile=False)
            model.fit(np.random.rand(32, 8, 8, 1), np.random.rand(32), verbose=0)
            return np.concatenate([w.ravel() for w in model.get_weights()])
        assert np.array_equal(train(), train())
        """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, env=MANY_THREADS)


def test_environment_is_a_plain_record():
    import keras
    stamp = environment()
    assert json.loads(json.dumps(stamp)) == stamp
    assert stamp["backend"] == keras.backend.backend() and stamp["keras"] == keras.__version__
    assert stamp["precision"] == keras.config.dtype_policy().name and environment(precision="mixed_bfloat16")["precision"] == "mixed_bfloat16"
    assert stamp["device"] == choose_device().kind and stamp["cores"] >= 1
    card = environment(Device("hpu", "GAUDI2", memory=96.04, driver="1.14.0-493"))
    assert (card["device_name"], card["device_memory_gib"], card["driver"]) == ("GAUDI2", 96.0, "1.14.0-493")
    del stamp["device_name"]  # a maker may call a processor "Ryzen w/ Radeon"
    assert not any(isinstance(value, str) and (os.sep in value or platform.node() in value.split()) for value in stamp.values())


def test_git_stamp(tmp_path):
    package = tmp_path / "signver_kit"
    package.mkdir()
    (package / "a.py").write_text("1")
    assert devices._git(package) is None  # no checkout
    git = lambda *a: subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@y", *a], check=True, capture_output=True)
    git("init", "-q")
    assert devices._git(package) is None  # no commit yet
    git("add", ".")
    git("commit", "-qm", "first")
    commit = devices._git(package)
    assert commit and "+" not in commit
    (tmp_path / "note.txt").write_text("untracked files do not change what runs from the commit")
    assert devices._git(package) == commit
    (package / "a.py").write_text("2")
    assert devices._git(package) == commit + "+dirty"
    inner = tmp_path / "venv" / "site-packages" / "signver_kit"
    inner.mkdir(parents=True)
    assert devices._git(inner) is None  # inside somebody else's repository


def test_the_backend_starts_without_a_word():
    """In a process of its own: TensorFlow's libraries speak while they load, and through the file descriptor."""
    program = "import os, sys; from signver_kit.devices import start_backend; print(start_backend()); os.write(2, b'heard'); sys.stderr.write(' again')"
    quiet = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run([sys.executable, "-c", program], env=quiet, capture_output=True, text=True, check=True)
    assert done.stdout == f"{BACKEND}\n" and done.stderr == "heard again"


def test_what_was_said_is_shown_when_the_start_fails(capfd):
    with pytest.raises(OSError), devices._hushed():
        os.write(2, b"the reason")
        raise OSError
    assert capfd.readouterr().err == "the reason"
