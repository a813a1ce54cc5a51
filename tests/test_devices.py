"Devices: what is found, what is advised, seeds, the environment stamp."
import json
import os
import platform
import random
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from signver_kit import devices
from signver_kit.devices import Device, choose_device, choose_precision, describe, environment, find_devices, jit_compile_for, set_seed

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


def test_gaudi_from_the_kernels_listing(tmp_path, monkeypatch):
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: None)  # without Habana's framework
    for number, kind in {0: "GAUDI2\n", 10: "GAUDI3\n", 2: "another maker's NPU\n", 3: None}.items():
        (tmp_path / f"accel{number}" / "device").mkdir(parents=True)
        if kind:
            (tmp_path / f"accel{number}" / "device" / "device_type").write_text(kind)
    found = devices._hpus(tmp_path)
    assert [(card.name, card.index) for card in found] == [("GAUDI2", 0), ("GAUDI3", 1)]
    assert all(not card.usable and "signver_kit[gaudi]" in card.remedy for card in found)
    assert devices._hpus(tmp_path / "absent") == []


def test_gpu_that_only_the_driver_sees(monkeypatch):
    listing = "NVIDIA H200, 9.0\nOld Card, [N/A]\n"
    monkeypatch.setattr(devices, "_output", lambda *command: listing if command[0] == "nvidia-smi" else None)
    monkeypatch.setattr(devices, "_backend_gpus", lambda backend: [])
    found = devices._gpus("tensorflow")
    assert [(gpu.name, gpu.capability, gpu.usable) for gpu in found] == [("NVIDIA H200", 9.0, False), ("Old Card", None, False)]
    assert find_devices()[0].kind == "cpu"  # what cannot be used comes last
    with pytest.raises(RuntimeError, match=r"NVIDIA H200 is here, but.*pip install 'signver_kit\[gpu\]'"):
        choose_device("gpu")
    monkeypatch.setattr(devices, "_backend_gpus", lambda backend: [("NVIDIA H200", 9.0)])
    assert choose_device().kind == "gpu" and choose_device("gpu").usable and choose_precision() == "mixed_bfloat16"


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
    assert environment(Device("hpu", "GAUDI2"))["device_name"] == "GAUDI2"
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
    assert done.stdout == "tensorflow\n" and done.stderr == "heard again"


def test_what_was_said_is_shown_when_the_start_fails(capfd):
    with pytest.raises(OSError), devices._hushed():
        os.write(2, b"the reason")
        raise OSError
    assert capfd.readouterr().err == "the reason"
