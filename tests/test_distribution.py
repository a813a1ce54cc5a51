"""Data-parallel training: what one device does with the whole batch, several do together. Run as a program, this file is the workers (see `together`)."""
import ast
import importlib.util
import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

STEPS, EVERY, KILLED_AT = 8, 3, 5     # the worker is killed in the fifth step, after the checkpoint of the third


# ---- what is trained; the same for one device and for several ----

def conv_model(keras):
    layers = keras.layers
    return keras.Sequential([layers.Input((16, 24, 1)), layers.Conv2D(6, 5, 2, use_bias=False), layers.BatchNormalization(momentum=0.9), layers.ReLU(), layers.Flatten(),
                             layers.Dense(8), layers.UnitNormalization(dtype="float32")])


def dense_model(keras, *outputs, dropout=0.0):
    layers = keras.layers
    return keras.Sequential([layers.Input((6,)), layers.Dense(8, use_bias=False), layers.BatchNormalization(momentum=0.9), layers.ReLU(), layers.Dropout(dropout),
                             layers.Dense(int(np.prod(outputs))), layers.Reshape(outputs)])


def images(n, count=11):
    rng, hands = np.random.default_rng(n), np.repeat(np.arange(4), 3)[:count].astype(np.int32)
    hands[2::3] = -hands[2::3] - 1                                   # the third of each is a forgery
    return (rng.normal(size=(count, 16, 24, 1)) + hands[:, None, None, None] * np.linspace(0, 1, 24)[:, None]).astype(np.float32), hands


def anchors(n, count=5):
    "Targets, of which the first rows have many things to find and the last none: the divisor is the batch's."
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(count, 6)), rng.normal(size=(count, 7, 5))
    y[..., 0] = np.where(np.arange(count)[:, None] < 2, rng.integers(-1, 2, (count, 7)), -1)
    return x.astype(np.float32), y.astype(np.float32)


def vectors(n, count=7):
    rng = np.random.default_rng(n)
    return rng.normal(size=(count, 6)).astype(np.float32), rng.normal(size=(count, 3)).astype(np.float32)


def squared_error(y_true, y_pred):
    "A loss that Keras does not know by name."
    return (y_true - y_pred) ** 2


def cases(keras):
    """name → (model, loss, batch, options, whether workers are given their own rows only)."""
    from signver_kit.anchors import DetectionLoss
    from signver_kit.losses import make_loss
    arcface = make_loss("arcface")
    return {"supcon": (conv_model(keras), make_loss("supcon"), images, {}, False),
            "arcface": (arcface.attach(conv_model(keras), 4), arcface, images, {}, True),
            "detection": (dense_model(keras, 7, 6), DetectionLoss(), anchors, {}, True),
            "mean": (dense_model(keras, 3), squared_error, vectors, {"gather": False}, True),
            "dropout": (dense_model(keras, 3, dropout=0.3), "mse", vectors, {}, False)}


def prepared(keras, name, seed=3):
    from signver_kit.training import OneCycle
    keras.utils.set_random_seed(seed)
    model, loss, batch, options, own_rows = cases(keras)[name]
    model.compile(keras.optimizers.AdamW(OneCycle(0.01, STEPS), weight_decay=1e-3, clipnorm=0.3), loss, jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model, batch, options, own_rows


def trained(keras, name, strategy=None, seed=3):
    from signver_kit.distribution import spread
    model, batch, options, own_rows = prepared(keras, name, seed)
    team, losses = spread(model, strategy, **(options if strategy else {})), []
    for n in range(STEPS):
        x, y = batch(n)
        if own_rows and team.processes > 1:
            rows = team.rows(len(x))
            losses.append(team.train_on_batch(x[rows], y[rows], of=len(x)))
        else:
            losses.append(team.train_on_batch(x, y))
    team.pull()
    return {"losses": losses, "weights": np.concatenate([w.ravel() for w in model.get_weights()]).tolist()}


def resumable(keras, strategy, folder, fatal):
    "Steps with a checkpoint now and then; `fatal`: worker 1 is killed on the way."
    from signver_kit.distribution import WorkerLost, spread
    from signver_kit.training import load_checkpoint, save_checkpoint
    model, batch, *_ = prepared(keras, "dropout")
    team, last, state = spread(model, strategy), Path(folder) / "last.npz", {"step": 0, "losses": []}
    if team.chief and last.exists():        # the others have it from the chief: they need no common disc
        state = load_checkpoint(last, model)
    state = team.agree(state)
    begun = state["step"]
    try:
        while state["step"] < STEPS:
            if fatal and team.process == 1 and state["step"] == KILLED_AT - 1:
                os.kill(os.getpid(), signal.SIGKILL)
            state = {"step": state["step"] + 1, "losses": [*state["losses"], team.train_on_batch(*batch(state["step"]))]}
            if team.chief and state["step"] % EVERY == 0:
                team.pull()
                save_checkpoint(last, model, state)
    except WorkerLost as error:
        return {"lost": str(error), "step": state["step"]}
    return {"begun": begun, "losses": state["losses"]}


def different_batches(keras, strategy):
    from signver_kit.distribution import spread
    model, batch, *_ = prepared(keras, "mean")
    team = spread(model, strategy)
    try:
        return {"loss": team.train_on_batch(*batch(team.process))}
    except (ValueError, RuntimeError) as error:
        return {"error": f"{type(error).__name__}: {error}"}


# ---- the processes ----

def child(work, result, tf_config=None):
    "Start `work` in a process of its own that has TensorFlow imported but not begun; what it returns goes to a file."
    number = os.fork()
    if number:
        return number
    if tf_config:
        os.environ["TF_CONFIG"] = tf_config
    status = 1
    try:
        result.write_text(json.dumps(work()))
        status = 0
    except BaseException:
        result.with_suffix(".error").write_text(traceback.format_exc())
    os._exit(status)


def drive(folder):
    "Everything that needs processes of its own, after one import of TensorFlow for all."
    import keras
    import tensorflow as tf

    import signver_kit.training  # noqa: F401, imported once for all
    from signver_kit.distribution import local_cluster, open_strategy

    def team(name, work):
        "Two workers; `work(strategy)`."
        begin = lambda: work(open_strategy("multi_worker", timeout=120))
        return [child(begin, folder / f"{name}{i}.json", config) for i, config in enumerate(local_cluster(2))]

    def mirrored():
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        return {name: trained(keras, name, open_strategy("mirrored")) for name in ("supcon", "detection")}

    def comparable(strategy):
        # each worker begins with weights of its own: the chief's must win
        number = strategy.cluster_resolver.task_id
        told = {name: trained(keras, name, strategy, seed=3 + number) for name in ("supcon", "arcface", "detection", "mean")}
        return told | {"uninterrupted": resumable(keras, strategy, folder / f"none{number}", fatal=False)}

    def wait(numbers):
        for number in numbers:
            os.waitpid(number, 0)

    wait([child(lambda: {name: trained(keras, name) for name in ("supcon", "arcface", "detection", "mean")}, folder / "alone.json"), child(mirrored, folder / "mirrored.json")])
    wait(team("team", comparable))
    for name, fatal in (("killed", True), ("resumed", False)):
        wait(team(name, lambda strategy: resumable(keras, strategy, folder, fatal)))
    wait(team("different", lambda strategy: different_batches(keras, strategy)))


if __name__ == "__main__":
    drive(Path(sys.argv[1]))
    sys.exit()


# ---- the tests ----

import keras  # noqa: E402

from backends import BACKEND, on_tensorflow  # noqa: E402
from conftest import ONE_THREAD  # noqa: E402
from signver_kit import distribution  # noqa: E402
from signver_kit.distribution import (DataParallel, OneDevice, OneMessageNormalization, WorkerLost, check_tf_config, is_chief, jax_data_parallel, local_cluster, on_chief,  # noqa: E402
                                      open_strategy, replicate, run_workers, scaling, share, spread, start_training, throughput)
from signver_kit.images import SignverError  # noqa: E402


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What the processes found: name → what each returned; a process that failed shows its traceback."""
    if BACKEND != "tensorflow":
        pytest.skip(f"tf.distribute is TensorFlow's, this is {BACKEND}")
    folder = tmp_path_factory.mktemp("together")
    done = subprocess.run([sys.executable, __file__, str(folder)], env={**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                          capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr

    def found(name):
        failed = folder / f"{name}.error"
        assert not failed.exists(), failed.read_text()
        result = folder / f"{name}.json"
        return json.loads(result.read_text()) if result.exists() else None

    return found


def close(one, other):
    np.testing.assert_allclose(one["losses"], other["losses"], rtol=1e-5)
    np.testing.assert_allclose(one["weights"], other["weights"], rtol=1e-3, atol=1e-5)  # moving statistics included


@pytest.mark.parametrize("name", ["supcon", "arcface", "detection", "mean"])
def test_two_processes_have_the_loss_curve_of_one(together, name):
    alone, chief, other = (together(process)[name] for process in ("alone", "team0", "team1"))
    assert len(alone["losses"]) == STEPS and alone["losses"][-1] < alone["losses"][0]
    close(alone, chief)
    assert chief == other


@pytest.mark.parametrize("name", ["supcon", "detection"])
def test_two_devices_of_one_process_have_the_loss_curve_of_one(together, name):
    close(together("alone")[name], together("mirrored")[name])


def test_a_killed_worker_ends_the_other_with_a_clear_error(together):
    survivor = together("killed0")
    assert together("killed1") is None and survivor["step"] == KILLED_AT - 1
    for words in ("worker 0 of 2", "no longer hears the others", "Start all workers again", "checkpoint"):
        assert words in survivor["lost"]


def test_workers_started_again_go_on_from_the_checkpoint_to_the_same_curve(together):
    whole, *resumed = (together(name) for name in ("team0", "resumed0", "resumed1"))
    for one in resumed:
        assert one["begun"] == EVERY
        np.testing.assert_allclose(one["losses"], whole["uninterrupted"]["losses"], rtol=1e-6)  # dropout's seeds included


def test_workers_with_different_batches_are_told(together):
    assert "every worker makes the same batches, those of worker 1 differ" in together("different1")["error"]
    assert "WorkerLost" in together("different0")["error"]


@given(count=st.integers(1, 300), parts=st.integers(1, 16))
def test_shares_are_a_partition_into_nearly_equal_parts(count, parts):
    rows = [share(count, part, parts) for part in range(parts)]
    assert rows[0].start == 0 and rows[-1].stop == count and all(a.stop == b.start for a, b in zip(rows, rows[1:]))
    sizes = [part.stop - part.start for part in rows]
    assert max(sizes) - min(sizes) <= 1


# ---- one device behind the strategy's interface: no processes needed ----

@pytest.fixture
def one_device():
    if BACKEND != "tensorflow":
        pytest.skip(f"tf.distribute is TensorFlow's, this is {BACKEND}")
    import tensorflow as tf
    return tf.distribute.OneDeviceStrategy("/cpu:0")


def compiled(loss="mse", **options):
    keras.utils.set_random_seed(3)
    model = dense_model(keras, 3, **options)
    model.compile(keras.optimizers.AdamW(0.01, clipnorm=0.1), loss, jit_compile=False)
    return model


def test_a_strategy_of_one_device_changes_nothing(one_device):
    plain, other = OneDevice(compiled()), spread(compiled(), one_device)
    assert isinstance(other, DataParallel) and plain.replicas == other.replicas == 1
    losses = [[team.train_on_batch(*vectors(n)) for n in range(3)] for team in (plain, other)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    before = other.model.get_weights()
    other.pull()
    after = other.model.get_weights()
    assert any(not np.array_equal(a, b) for a, b in zip(before, after))
    for a, b in zip(after, plain.model.get_weights()):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert int(other.model.optimizer.iterations) == 3


def test_pull_before_the_first_step_leaves_the_model_as_it_is(one_device):
    model = compiled()
    before = model.get_weights()
    spread(model, one_device).pull()
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))


def test_push_gives_the_devices_what_the_model_holds_now(one_device):
    team = spread(compiled(), one_device)
    first = team.train_on_batch(*vectors(0))
    team.model.set_weights(compiled().get_weights())
    team.push()
    assert team.train_on_batch(*vectors(0)) == pytest.approx(first, rel=1e-6)


def test_agree_is_what_json_makes_of_the_chiefs_value(one_device):
    for team in (spread(compiled(), one_device), spread(compiled())):
        assert team.agree({"loss": 0.25, "names": ["ä", None]}) == {"loss": 0.25, "names": ["ä", None]}
        assert team.chief and team.process == 0 and team.rows(9) == slice(0, 9)


def test_regularisers_count_once(one_device):
    def regularised():
        keras.utils.set_random_seed(3)
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.5))])
        model.compile("sgd", "mse", jit_compile=False)
        return model
    assert spread(regularised(), one_device).train_on_batch(*vectors(0)) == pytest.approx(spread(regularised()).train_on_batch(*vectors(0)), rel=1e-5)


@pytest.mark.parametrize("shape", [(5,), (4, 3, 5)])
def test_one_message_holds_the_moments(one_device, shape):
    x = np.random.default_rng(1).normal(3, 2, (9, *shape)).astype(np.float32)
    layer = OneMessageNormalization()
    layer.build(x.shape)
    mean, variance = one_device.run(layer._moments, (x, None))
    np.testing.assert_allclose(mean, x.reshape(-1, 5).mean(0), rtol=1e-5)
    np.testing.assert_allclose(variance, x.reshape(-1, 5).var(0), rtol=1e-4)


def test_replicate_switches_batch_normalisation_only(one_device):
    from signver_kit.extractor import ExtractorConfig, build_extractor
    model = build_extractor(ExtractorConfig(width=4, input_size=(32, 48), embedding_dim=8), "mixed_bfloat16")
    for wanted in (True, False):
        twin = replicate(model, one_device, synchronised=wanted)
        pairs = list(zip(model.layers, twin.layers, strict=True))
        for ours, theirs in pairs:
            normalises = wanted and isinstance(ours, keras.layers.BatchNormalization)
            assert type(theirs) is (OneMessageNormalization if normalises else type(ours))
        assert all(ours.compute_dtype == theirs.compute_dtype for ours, theirs in pairs if ours.weights)
        assert [tuple(v.shape) for v in twin.variables] == [tuple(v.shape) for v in model.variables]


@pytest.mark.parametrize("x, y, of", [(3, 2, None), (0, 0, None), (3, 3, 5)])
def test_batches_that_cannot_be_dealt_are_refused(one_device, x, y, of):
    with pytest.raises(ValueError, match=f"got {x} and {y} of"):
        spread(compiled(), one_device).train_on_batch(np.zeros((x, 6), np.float32), np.zeros((y, 3), np.float32), of)


def test_a_model_without_a_loss_is_refused(one_device):
    with pytest.raises(ValueError, match="compiled with optimizer and loss"):
        spread(dense_model(keras, 3), one_device)


def test_a_sum_needs_the_whole_batch(one_device):
    with pytest.raises(ValueError, match="only a mean goes without gather; got reduction='sum', gather=False"):
        spread(compiled(keras.losses.MeanSquaredError(reduction="sum")), one_device, gather=False)


@on_tensorflow
def test_a_lost_worker_is_only_one_of_several():
    import tensorflow as tf
    error = tf.errors.DeadlineExceededError(None, None, "Collective has timed out\nmore")
    with pytest.raises(WorkerLost, match="worker 3 of 8.*DeadlineExceededError: Collective has timed out"), distribution._watched(tf, 3, 8):
        raise error
    with pytest.raises(tf.errors.DeadlineExceededError), distribution._watched(tf, 0, 1):
        raise error
    with pytest.raises(ZeroDivisionError), distribution._watched(tf, 0, 2):
        1 / 0


# ---- strategies and clusters ----

def test_no_strategy_for_none_and_none_for_unknown_words():
    assert open_strategy("none") is None
    with pytest.raises(ValueError, match="none, mirrored, multi_worker, hpu, got 'tpu'"):
        open_strategy("tpu")


@on_tensorflow
def test_a_gaudi_strategy_without_a_card_says_so():
    if list(Path("/sys/class/accel").glob("accel*")):
        pytest.skip("there is an accelerator here")
    with pytest.raises(RuntimeError, match="no Gaudi card"):
        open_strategy("hpu")


@on_tensorflow
@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"cluster": {"worker": ["a:1"]}}', '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
                                  '{"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}}',
                                  '{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}'])
def test_a_tf_config_that_does_not_serve_is_refused(text, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match="TF_CONFIG must say who trains"):
        open_strategy("multi_worker")


def test_a_chief_of_its_own_comes_first():
    jobs = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
    numbers = [check_tf_config(json.dumps({"cluster": jobs, "task": {"type": kind, "index": i}}))[1] for kind, i in (("chief", 0), ("worker", 0), ("worker", 1))]
    assert numbers == [0, 1, 2]


def test_other_backends_are_told(monkeypatch):
    for backend in ("tensorflow", "torch", "jax"):
        monkeypatch.setattr(keras.backend, "backend", lambda: backend)
        if backend != "jax":
            with pytest.raises(RuntimeError, match=f"works on JAX only, got {backend}"), jax_data_parallel():
                pass
        if backend != "tensorflow":
            with pytest.raises(RuntimeError, match=f"need Keras's TensorFlow backend, got {backend}"):
                open_strategy("mirrored")


def test_the_module_loads_without_tensorflow():
    tree = ast.parse(Path(distribution.__file__).read_text())
    loaded = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    assert "keras" in loaded and "tensorflow" not in loaded


@given(st.integers(1, 6))
def test_a_local_cluster_has_one_address_a_worker(workers):
    found = [check_tf_config(text) for text in local_cluster(workers)]
    assert [number for _, number in found] == list(range(workers)) and all(addresses == found[0][0] for addresses, _ in found)
    with pytest.raises(ValueError, match="at least 1 worker, got 0"):
        local_cluster(0)


WHO = "import json, os, sys, time; me = json.loads(os.environ['TF_CONFIG'])['task']['index']; "


def test_workers_run_side_by_side_and_tell():
    assert run_workers([sys.executable, "-c", WHO + "print('I am', me)"], 3) == [f"I am {i}\n" for i in range(3)]


def test_a_worker_that_fails_is_named_and_the_others_do_not_stay():
    with pytest.raises(SignverError, match="worker 1 of 2.*exit code 1.*\n.*no disc"):
        run_workers([sys.executable, "-c", WHO + "sys.exit('no disc') if me else time.sleep(600)"], grace=0.2)
    with pytest.raises(SignverError, match="worker 0 of 2.*signal 9"):
        run_workers([sys.executable, "-c", WHO + "me or os.kill(os.getpid(), 9)"])
    with pytest.raises(SignverError, match="signal 9"):
        run_workers([sys.executable, "-c", "import time; time.sleep(600)"], 1, timeout=0.2)


# ---- a training command ----

def test_several_processes_without_distribute_are_refused(monkeypatch):
    refusal = "add --distribute" if BACKEND == "tensorflow" else f"under TensorFlow only, got . under {BACKEND}: set KERAS_BACKEND"
    monkeypatch.setenv("TF_CONFIG", local_cluster(2)[1])
    with pytest.raises(ValueError, match=refusal):
        start_training("cpu")
    monkeypatch.delenv("TF_CONFIG")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "3")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "8")
    with pytest.raises(ValueError, match=refusal):
        start_training("cpu")


def test_one_device_is_nothing_to_distribute_to(monkeypatch):
    for name in ("TF_CONFIG", "OMPI_COMM_WORLD_RANK", "PMI_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert start_training("cpu") is None
    with pytest.raises(ValueError, match="got one cpu: leave --distribute out"):
        start_training("cpu", distribute=True)


@on_tensorflow
def test_mpis_ranks_become_a_cluster(monkeypatch):
    opened = []
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "3")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    monkeypatch.setattr(distribution, "open_strategy", lambda kind, timeout: opened.append((kind, check_tf_config(os.environ["TF_CONFIG"]))))
    monkeypatch.setitem(os.environ, "TF_CONFIG", "")        # start_training writes it: monkeypatch takes it away again
    start_training("cpu", distribute=True, hosts=("first", "second"))
    assert opened == [("multi_worker", (["first:7850", "first:7851", "second:7850", "second:7851"], 3))]


def test_without_others_everybody_is_the_chief(one_device):
    for strategy in (None, one_device):
        assert is_chief(strategy) and on_chief(strategy, lambda: "done") == "done"


@on_tensorflow
def test_two_workers_train_by_the_command_and_one_of_them_writes_and_speaks(tmp_path):
    command = ["train", "cleaner", "--preset", "tiny", "--device", "cpu", "--distribute", "--out", str(tmp_path / "made")]
    told = run_workers([sys.executable, "-m", "signver_kit.cli", *command], 2, timeout=400)
    assert "the cleaner is in" in told[0] and told[1] == ""
    assert {path.name for path in (tmp_path / "made").iterdir()} >= {"config.json", "model.weights.h5", "card.json"}


# ---- scaling ----

@given(st.lists(st.floats(0.1, 1e4), min_size=1, max_size=5))
def test_efficiency_is_the_share_of_perfect_speed(speeds):
    rows = [{"workers": 2**i, "images_per_second": speed, "note": i} for i, speed in enumerate(speeds)]
    found = scaling(rows[::-1])
    assert [row["note"] for row in found] == list(range(len(speeds))) and found[0]["scaling_efficiency"] == 1
    for row in found:
        assert row["scaling_efficiency"] * row["workers"] * speeds[0] == pytest.approx(row["images_per_second"])
    assert "speedup" not in rows[0]


@pytest.mark.parametrize("workers", [[], [2], [1, 1, 2]])
def test_efficiency_needs_one_row_of_one_worker(workers):
    with pytest.raises(ValueError, match="measured against one worker"):
        scaling([{"workers": n, "images_per_second": 1.0} for n in workers])


def test_throughput_is_a_row_for_scaling():
    row = throughput(spread(compiled()), *vectors(0), steps=4, warm_up=1)
    assert row["workers"] == 1 and row["batch"] == 7 and row["images_per_second"] == pytest.approx(7000 / row["step_ms"])
    assert scaling([row])[0]["speedup"] == 1


# ---- JAX ----

ON_JAX = """
import json, keras, jax, numpy as np
from signver_kit.distribution import jax_data_parallel
from signver_kit.losses import SupervisedContrastiveLoss
from test_distribution import conv_model, images

def losses():
    keras.utils.set_random_seed(3)
    model = conv_model(keras)
    model.compile(keras.optimizers.AdamW(0.01, clipnorm=0.3), SupervisedContrastiveLoss(), jit_compile=True)
    found = []
    for n in range(5):
        model.reset_metrics()
        found.append(float(model.train_on_batch(*images(n, 12))))
    dealt = {len(weight.value.sharding.device_set) for weight in model.trainable_variables}
    return found, np.concatenate([weight.ravel() for weight in model.get_weights()]).tolist(), sorted(dealt)

alone = losses()
with jax_data_parallel() as spread_over:
    both = losses()
print(json.dumps({"devices": len(jax.devices()), "mesh": list(spread_over.device_mesh.shape), "alone": alone, "both": both, "after": keras.distribution.distribution() is None}))
"""


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed here: its data parallelism was not tried")
def test_on_jax_two_devices_have_the_loss_curve_of_one():
    environment = {**os.environ, "KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
                   "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])}
    done = subprocess.run([sys.executable, "-c", ON_JAX], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["devices"] == 2 and told["mesh"] == [2] and told["after"]
    (losses, weights, one), (losses_of_two, weights_of_two, two) = told["alone"], told["both"]
    assert (one, two) == ([1], [2]) and losses[-1] < losses[0]
    np.testing.assert_allclose(losses, losses_of_two, rtol=1e-5)
    np.testing.assert_allclose(weights, weights_of_two, rtol=1e-3, atol=1e-5)     # moving statistics included: those of the whole batch
