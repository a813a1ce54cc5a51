"""Sampler, augmentation, fit loop, checkpoints, folds."""
import json
import os
import signal
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signver_kit import training
from signver_kit.devices import generator_states
from signver_kit.losses import SupervisedContrastiveLoss, TripletLoss
from signver_kit.training import (Augmentation, BatchSource, OneCycle, PKSampler, TrainConfig, WeightsMismatch, aggregate_folds, ahead, augment, compile_steps, config_from, fit_steps,
                                  cross_validate, embed, find_learning_rate, fit, history_curves, labels_of, load_checkpoint, load_initial, make_optimizer,
                                  pair_eers, pipeline_speed, precision, read_model_folder, round_to_half, save_checkpoint, save_model,
                                  steepest_fall)

from backends import numpy
from conftest import MANY_THREADS

LABELS = np.concatenate([np.repeat(np.arange(5), 6), -np.repeat(np.arange(5), 4) - 1])
IMAGES = np.random.default_rng(0).integers(0, 256, (len(LABELS), 16, 24), dtype=np.uint8)
FAST = TrainConfig(epochs=3, steps_per_epoch=2, signers_per_batch=3, genuine=3, forgeries=1)


def tiny_model(seed=0, units=8):
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.layers.Input((16, 24, 1)), keras.layers.Conv2D(4, 3, 2), keras.layers.BatchNormalization(), keras.layers.ReLU(),
                             keras.layers.Dropout(0.2), keras.layers.Flatten(), keras.layers.Dense(units), keras.layers.UnitNormalization(dtype="float32")])


class HeadLoss(keras.losses.Loss):
    """A loss with weights of its own, one direction a signer: what ArcFace looks like to `fit`."""

    def attach(self, model, signers):
        self.signers, self.dimensions = signers, model.output_shape[-1]
        embedding = model.outputs[0]
        head = keras.layers.Dense(signers, use_bias=False, name="directions")(embedding)
        return keras.Model(model.inputs[0], keras.layers.Concatenate()([embedding, head]))

    def call(self, y_true, y_pred):
        genuine = keras.ops.cast(y_true >= 0, "float32")
        return genuine * keras.losses.sparse_categorical_crossentropy(keras.ops.maximum(y_true, 0), 8 * y_pred[:, self.dimensions:], from_logits=True)


def same(a, b):
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b))


def arrays_of(path):
    with np.load(path) as data:
        return {name: data[name] for name in data.files}


def test_labels_say_who_wrote_and_whose_name():
    table = pd.DataFrame({"signer": ["b", "a", "b"], "kind": ["skilled", "genuine", "genuine"]})
    labels, signers = labels_of(table)
    assert signers == ["a", "b"] and labels.tolist() == [-2, 0, 1] and labels.dtype == np.int32


def test_labels_go_by_identity_where_a_signer_writes_several_names():
    table = pd.DataFrame({"signer": ["1", "1", "1", "2", "3"], "kind": ["genuine", "genuine", "skilled", "genuine", "genuine"],
                          "identity": ["1/a", "1/b", "1/b", "2/a", None]})
    labels, identities = labels_of(table)
    assert identities == ["1/a", "1/b", "2/a", "3"] and labels.tolist() == [0, 1, -2, 2, 3]
    with pytest.raises(ValueError, match="an identity belongs to one signer, 'a' has 2"):
        labels_of(table.assign(identity=["a", "b", "b", "a", "c"]))


@settings(max_examples=40, deadline=None)
@given(signers=st.integers(2, 9), genuine=st.integers(2, 6), forged=st.integers(0, 5), p=st.integers(2, 9), epoch=st.integers(0, 50), seed=st.integers(0, 99))
def test_sampler_draws_p_signers_and_k_images(signers, genuine, forged, p, epoch, seed):
    labels = np.concatenate([np.repeat(np.arange(signers), genuine), -np.repeat(np.arange(signers), forged) - 1])
    p = min(p, signers)
    sampler = PKSampler(labels, p, 4, 2, seed)
    steps = [sampler.batch(epoch, step) for step in range(signers)]
    for index in steps:
        assert len(set(index)) == len(index)
        chosen = labels[index]
        assert len(set(chosen[chosen >= 0])) <= p
        for s in set(chosen[chosen >= 0]):
            assert (chosen == s).sum() == min(4, genuine) and (chosen == -(s + 1)).sum() == min(2, forged)
    seen = np.bincount(np.concatenate([np.unique(labels[i][labels[i] >= 0]) for i in steps]), minlength=signers)
    assert seen.max() - seen.min() <= p  # laps are permutations: nobody is forgotten
    again = PKSampler(labels, p, 4, 2, seed)
    assert all(np.array_equal(again.batch(epoch, step), steps[step]) for step in reversed(range(signers)))


def test_sampler_refuses_what_cannot_teach():
    with pytest.raises(ValueError, match="at least 2 genuine"):
        PKSampler([0, 1, 1], 2, 2, 0)
    with pytest.raises(ValueError, match="signers_per_batch=9"):
        PKSampler(LABELS, signers_per_batch=9)
    with pytest.raises(ValueError, match="one label an image"):
        BatchSource(IMAGES[:3], LABELS, None)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), dtype=st.sampled_from([np.uint8, np.float32]))
def test_augmentation_keeps_shape_type_and_range(seed, dtype):
    ink = np.zeros((40, 60), dtype)
    ink[15:25, 20:40] = 255 if dtype == np.uint8 else 1
    out = augment(ink, np.random.default_rng(seed))
    assert out.shape == ink.shape and out.dtype == ink.dtype and out.min() >= 0 and out.max() <= ink.max()
    assert 0.5 < out.sum(dtype=float) / ink.sum(dtype=float) < 1.6  # still the same signature
    assert np.array_equal(out, augment(ink, np.random.default_rng(seed)))


def test_no_augmentation_is_the_identity():
    still = Augmentation(rotation=0, scale=0, shear=0, shift=0, thickness=0)
    assert np.array_equal(augment(IMAGES[0], np.random.default_rng(0), still), IMAGES[0])


def test_batches_come_in_order_whatever_the_thread_does():
    source = BatchSource(IMAGES, LABELS, PKSampler(LABELS, 3, 3, 1))
    for (x, y), step in zip(source.batches(2, 4), range(4)):
        a, b = source.make(2, step)
        assert np.array_equal(x, a) and np.array_equal(y, b)
        assert x.dtype == np.float32 and x.shape[1:] == (16, 24, 1) and x.max() <= 1


def test_schedules_by_hand():
    cycle = OneCycle(2.0, 100)
    values = [float(cycle(s)) for s in (0, 10, 20, 60, 100, 500)]
    np.testing.assert_allclose(values, [0.2, 1.1, 2.0, 1.0001, 0.0002, 0.0002], rtol=1e-3)
    np.testing.assert_allclose(float(OneCycle(2.0, 100, rise=0.0)(0)), 2.0, rtol=1e-6)
    assert OneCycle.from_config(cycle.get_config()).get_config() == cycle.get_config()


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_optimizers_by_name(name):
    optimizer = make_optimizer(TrainConfig(optimizer=name, clip_norm=0.5), 10)
    assert optimizer.clipnorm == 0.5 and type(optimizer).__name__.lower() == name


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="optimizer must be one of adam, adamw, sgd, got 'lamb'"):
        make_optimizer(TrainConfig(optimizer="lamb"), 10)
    with pytest.raises(ValueError, match="schedule must be one of"):
        make_optimizer(TrainConfig(schedule="step"), 10)
    with pytest.raises(ValueError, match="no field lr"):
        config_from(TrainConfig, {"lr": 1})


def test_pair_eers_agree_with_a_slow_count():
    rng = np.random.default_rng(1)
    e = rng.normal(size=(len(LABELS), 4))
    e /= np.linalg.norm(e, axis=1, keepdims=True)
    pairs = {"genuine": [], "skilled": [], "random": []}
    for i in range(len(e)):
        for j in range(len(e)):
            d = 1 - e[i] @ e[j]
            if LABELS[i] >= 0 and LABELS[j] >= 0 and i < j:
                pairs["genuine" if LABELS[i] == LABELS[j] else "random"].append(d)
            elif LABELS[i] >= 0 and LABELS[j] == -(LABELS[i] + 1):
                pairs["skilled"].append(d)
    for kind in ("skilled", "random"):
        found = pair_eers(e.astype(np.float32), LABELS)[f"{kind}_eer"]
        thresholds = np.unique(pairs["genuine"] + pairs[kind])
        frr = np.array([np.mean(np.array(pairs["genuine"]) > t) for t in thresholds])
        far = np.array([np.mean(np.array(pairs[kind]) <= t) for t in thresholds])
        nearest = np.argmin(abs(frr - far))
        assert abs(found - (frr + far)[nearest] / 2) < 0.01
    assert set(pair_eers(e[:30], LABELS[:30])) == {"random_eer"}  # no forgeries: no skilled figure, not a zero


def test_fit_learns_stops_and_restores_the_best(tmp_path, monkeypatch):
    sequence = iter([0.4, 0.2, 0.3, 0.35, 0.1])
    monkeypatch.setattr(training, "pair_eers", lambda e, y: {"skilled_eer": next(sequence)})
    model = tiny_model()
    config = TrainConfig(**{**FAST.__dict__, "epochs": 5, "patience": 2})
    history = fit(model, TripletLoss(), IMAGES, LABELS, config, validation=(IMAGES[:4], LABELS[:4]), folder=tmp_path, progress=False)
    assert [row["skilled_eer"] for row in history] == [0.4, 0.2, 0.3, 0.35]  # two epochs without a better one
    kept = tiny_model()
    training._prepare(kept, TripletLoss(), config, LABELS)
    assert load_checkpoint(tmp_path / "best.npz", kept)["epoch"] == 2
    assert all(np.array_equal(a, b) for a, b in zip(kept.get_weights(), model.get_weights()))


def test_loss_falls_on_something_learnable():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 8)
    images = np.clip(rng.normal(0, 25, (48, 16, 24)) + 200 * (rng.random((6, 16, 24)) > 0.5)[labels], 0, 255).astype(np.uint8)
    config = TrainConfig(epochs=4, steps_per_epoch=10, signers_per_batch=6, genuine=4, forgeries=0, learning_rate=1e-2, augmentation=None)
    model = tiny_model()
    before = pair_eers(embed(model, images), labels)["random_eer"]
    fit(model, SupervisedContrastiveLoss(), images, labels, config, progress=False)
    assert pair_eers(embed(model, images), labels)["random_eer"] < min(0.05, before)


def test_resume_refuses_another_configuration_and_another_model(tmp_path):
    fit(tiny_model(), TripletLoss(), IMAGES, LABELS, FAST, folder=tmp_path, progress=False)
    other = TrainConfig(**{**FAST.__dict__, "learning_rate": 0.5})
    with pytest.raises(ValueError, match="learning_rate was 0.001 and is 0.5"):
        fit(tiny_model(), TripletLoss(), IMAGES, LABELS, other, folder=tmp_path, progress=False)
    with pytest.raises(WeightsMismatch):
        fit(tiny_model(units=9), TripletLoss(), IMAGES, LABELS, FAST, folder=tmp_path, progress=False)


def test_a_diverging_run_says_so():
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        fit(tiny_model(), lambda y, e: keras.ops.sum(e) * float("nan"), IMAGES, LABELS, FAST, progress=False)


SCRIPT = textwrap.dedent("""
    import json, os, signal, sys, traceback
    from pathlib import Path
    import keras, numpy as np
    from test_training import FAST, HeadLoss, IMAGES, LABELS, tiny_model
    from signver_kit import training
    from signver_kit.losses import TripletLoss

    def watch(die_at):      # "step N": before the Nth step of this process; "write N": in the middle of its Nth checkpoint
        def dying(what, action):
            count = iter(range(1, 10**6))
            def call(*arguments, **named):
                if die_at == f"{what} {next(count)}":
                    if what == "write":
                        arguments[0].write(b"half a checkpoint")
                        arguments[0].flush()
                    os.kill(os.getpid(), signal.SIGKILL)
                return action(*arguments, **named)
            return call

        np.savez = dying("write", np.savez)
        step = dying("step", lambda model, x, y: type(model).train_on_batch(model, x, y))
        prepare = training._prepare
        def watched(model, *arguments):
            steps = prepare(model, *arguments)
            model.train_on_batch = lambda x, y: step(model, x, y)
            return steps
        training._prepare = watched

    def train(root):
        root.mkdir(exist_ok=True)
        for policy, loss in (("float32", HeadLoss()), ("mixed_bfloat16", TripletLoss())):
            if (root / f"{policy}.weights.npz").exists():
                continue
            with training.precision(policy):
                model = tiny_model()
            training.fit(model, loss, IMAGES, LABELS, FAST, validation=(IMAGES, LABELS), folder=root / policy, progress=False)
            with open(root / f"{policy}.weights.npz", "wb") as file:
                np.savez_compressed(file, *model.get_weights())

    def ends(root, die_at):      # forked before TensorFlow has computed anything: a process of its own without importing it again
        child = os.fork()
        if child:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        try:
            watch(die_at)
            train(root)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    for name, die_at in json.loads(sys.argv[2]):
        root = Path(sys.argv[1]) / name
        print(json.dumps([name, ends(root, die_at), sorted(path.name for path in root.glob("*.weights.npz"))]), flush=True)
""")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="signals")
def test_killed_and_resumed_ends_with_the_same_bits(tmp_path):
    """Networks with batch statistics, dropout and a loss's own head, in float32 and bfloat16; two steps an epoch, three epochs each."""
    env = {**MANY_THREADS, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    # In the middle of float32's second epoch; then, float32 done, while bfloat16 writes a checkpoint (float32 has written four by then at most).
    runs = [("whole", "never"), ("cut", "step 4"), ("cut", "write 6"), ("cut", "never")]
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path), json.dumps(runs)], env=env, capture_output=True, text=True)
    first, both = "float32.weights.npz", ["float32.weights.npz", "mixed_bfloat16.weights.npz"]
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        ["whole", 0, both], ["cut", -signal.SIGKILL, []], ["cut", -signal.SIGKILL, [first]], ["cut", 0, both]], done.stderr
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for policy in ("float32", "mixed_bfloat16"):
        for name in (f"{policy}.weights.npz", f"{policy}/last.npz", f"{policy}/best.npz"):
            a, b = arrays_of(whole / name), arrays_of(cut / name)
            a.pop("state", None), b.pop("state", None)  # holds the seconds that each epoch took
            assert a.keys() == b.keys() and all(np.array_equal(a[n], b[n]) and a[n].dtype == b[n].dtype for n in a), name


def test_a_checkpoint_holds_the_state_of_dropout(tmp_path):
    model = tiny_model()
    seeds = [v for v in model.non_trainable_variables if "seed" in v.path]
    assert len(seeds) == 1
    training._prepare(model, TripletLoss(), FAST, LABELS)

    def step():
        model.reset_metrics()
        return float(model.train_on_batch(IMAGES[..., None] / 255, LABELS))

    def drawn():                                     # PyTorch's own generator where Keras leaves the draw to it
        return [numpy(seeds[0]), *generator_states().values()]

    step()
    before = drawn()
    save_checkpoint(tmp_path / "c.npz", model, {})
    loss = step()
    assert not same(before, drawn())
    load_checkpoint(tmp_path / "c.npz", model)
    assert same(before, drawn()) and step() == loss


def test_a_loss_with_a_head_trains_both_and_gives_back_the_embedding(tmp_path):
    model, loss = tiny_model(), HeadLoss()
    start = model.get_weights()
    config = TrainConfig(**{**FAST.__dict__, "extra_signers_per_batch": 3})
    history = fit(model, loss, IMAGES, LABELS, config, extra=(IMAGES, LABELS), validation=(IMAGES, LABELS), folder=tmp_path, progress=False)
    assert loss.signers == 10 and model.output_shape == (None, 8)  # five signers, and five more behind them
    assert not same(start, model.get_weights()) and "skilled_eer" in history[0]
    kept = arrays_of(tmp_path / "best.npz")
    heads = [name for name in kept if name.startswith("h")]
    assert [kept[name].shape for name in heads] == [(8, 10)]
    own = tiny_model(seed=5)
    load_initial(own, tmp_path / "best.npz")
    assert same(own.get_weights(), model.get_weights())
    with pytest.raises(WeightsMismatch):  # the head of other signers
        fit(tiny_model(), HeadLoss(), IMAGES, LABELS, config, folder=tmp_path, progress=False)


def test_a_head_on_another_network_is_refused():
    class Stranger(HeadLoss):
        def attach(self, model, signers):
            return super().attach(tiny_model(), signers)
    with pytest.raises(ValueError, match="shares the layers"):
        fit(tiny_model(), Stranger(), IMAGES, LABELS, FAST, progress=False)


def test_speed_and_range_test_know_heads():
    assert pipeline_speed(tiny_model(), HeadLoss(), IMAGES, LABELS, FAST, rounds=1, steps=1)["images_per_second"] > 0
    assert len(find_learning_rate(tiny_model(), HeadLoss(), IMAGES, LABELS, FAST, steps=20).losses) > 0


@pytest.mark.filterwarnings("error::UserWarning")
def test_fine_tuning_starts_from_given_weights_unless_a_run_goes_on(tmp_path):
    first = tiny_model()
    fit(first, TripletLoss(), IMAGES, LABELS, FAST, folder=tmp_path / "a", progress=False)
    save_model(first, tmp_path / "model", {}, {})
    still = TrainConfig(**{**FAST.__dict__, "epochs": 0})
    for initial in (tmp_path / "model", tmp_path / "a" / "best.npz", tmp_path / "a" / "last.npz"):
        second = tiny_model(seed=9)
        assert not same(second.get_weights(), first.get_weights())
        fit(second, SupervisedContrastiveLoss(), IMAGES, LABELS, still, initial=initial, progress=False)
        assert same(second.get_weights(), first.get_weights())
    # a folder with a run in it wins, and needs the initial weights no longer
    third = tiny_model(seed=9)
    fit(third, TripletLoss(), IMAGES, LABELS, FAST, folder=tmp_path / "a", initial=tmp_path / "gone.npz", progress=False)
    assert same(third.get_weights(), first.get_weights())


@pytest.mark.filterwarnings("error::UserWarning")
def test_initial_weights_that_do_not_fit_are_refused(tmp_path):
    save_model(tiny_model(units=9), tmp_path / "model", {}, {})
    other = tiny_model(units=9)
    save_checkpoint(tmp_path / "c.npz", other, {})
    for source in (tmp_path / "model", tmp_path / "c.npz"):
        with pytest.raises(WeightsMismatch):
            load_initial(tiny_model(), source)
    with pytest.raises(FileNotFoundError, match="model folder or a checkpoint"):
        load_initial(tiny_model(), tmp_path / "none.npz")
    (tmp_path / "model" / "model.weights.h5").write_bytes(b"x")
    with pytest.raises(WeightsMismatch, match="sha256"):
        load_initial(tiny_model(units=9), tmp_path / "model")


def test_range_test_finds_the_fall_and_puts_everything_back():
    class Scaled(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return 3 * SupervisedContrastiveLoss().call(y_true, y_pred)
    model = tiny_model()
    before = [numpy(v) for v in model.variables]
    found = find_learning_rate(model, Scaled(), IMAGES, LABELS, FAST, low=1e-5, high=10, steps=40)
    assert same(before, [numpy(v) for v in model.variables]) and not model.compiled
    assert len(found.rates) == len(found.losses) == len(found.smooth) and found.rates[0] == pytest.approx(1e-5)
    ratio = found.rates[1:] / found.rates[:-1]
    np.testing.assert_allclose(ratio, ratio[0])
    assert found.smooth[0] == pytest.approx(found.losses[0])
    assert found.smooth[1] == pytest.approx((0.9 * found.losses[0] + found.losses[1]) / 1.9)
    assert np.isnan(found.suggestion) or found.rates[0] < found.suggestion < found.rates[-1]
    for wrong in ({"low": 0}, {"low": 2.0, "high": 1.0}, {"steps": 5}, {"smoothing": 1.0}):
        with pytest.raises(ValueError, match="a range test needs"):
            find_learning_rate(model, Scaled(), IMAGES, LABELS, FAST, **wrong)


@pytest.mark.parametrize("bad", ["climbs", "breaks"])
def test_range_test_stops_when_the_loss_runs_away(bad):
    calls = []
    model = tiny_model()
    before = model.get_weights()
    train = keras.Model.train_on_batch

    def fake(self, x, y):
        train(self, x, y)
        calls.append(1)
        return 2.0 - 0.1 * len(calls) if len(calls) <= 10 else float("nan") if bad == "breaks" else 1.0 + (len(calls) - 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Model, "train_on_batch", fake)
        found = find_learning_rate(model, SupervisedContrastiveLoss(), IMAGES, LABELS, FAST, steps=60, smoothing=0.0)
    assert len(found.losses) == {"breaks": 10, "climbs": 11}[bad] and same(before, model.get_weights())


def test_steepest_fall_by_hand():
    rates = np.geomspace(1e-6, 1, 100)
    sigmoid = 3 - 2 / (1 + np.exp(-4 * (np.log10(rates) + 3)))  # falls fastest at 1e-3
    assert 0.7 < steepest_fall(rates, sigmoid) / 1e-3 < 1.4
    assert np.isnan(steepest_fall(rates, np.linspace(1, 2, 100))) and np.isnan(steepest_fall(rates[:3], [3, 2, 1]))
    noisy = sigmoid.copy()
    noisy[:5] += [9, 7, 5, 3, 1]  # a wild start does not count
    assert steepest_fall(rates, noisy) == steepest_fall(rates, sigmoid)


def test_history_as_columns():
    rows = [{"epoch": 1, "loss": 2.0, "seconds": 1.0, "skilled_eer": 0.3}, {"epoch": 2, "loss": 1.0, "seconds": 1.0, "skilled_eer": 0.2}]
    assert history_curves(rows) == {"loss": [2.0, 1.0], "val_skilled_eer": [0.3, 0.2]}
    assert history_curves([]) == {}


def test_a_torn_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    model = tiny_model()
    training._prepare(model, TripletLoss(), FAST, LABELS)
    path = tmp_path / "last.npz"
    save_checkpoint(path, model, {"epoch": 1})
    monkeypatch.setattr(np, "savez", lambda file, **_: (file.write(b"half"), (_ for _ in ()).throw(OSError("disk full")))[1].__next__())
    with pytest.raises(OSError):
        save_checkpoint(path, model, {"epoch": 2})
    assert load_checkpoint(path, model) == {"epoch": 1}


def test_folds_resume_and_keep_finished_ones(tmp_path):
    done = []

    def fold(number, split, work):
        if number == 2 and len(done) < 2:
            done.append("crash")
            raise KeyboardInterrupt
        done.append(number)
        return {"value": np.array(split)}
    with pytest.raises(KeyboardInterrupt):
        cross_validate([10, 20, 30], fold, tmp_path, progress=False)
    results = cross_validate([10, 20, 30], fold, tmp_path, progress=False)
    assert [int(r["value"]) for r in results] == [10, 20, 30] and done == [1, "crash", 2, 3]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["begun.json", "fold-1.npz", "fold-2.npz", "fold-3.npz"]
    with pytest.raises(ValueError, match="began with"):
        cross_validate([10, 20, 31], fold, tmp_path, progress=False)
    with pytest.raises(ValueError, match="began with"):
        cross_validate([10, 20, 30], fold, tmp_path, settings={"lr": 1}, progress=False)


def test_pipeline_speed_measures_both():
    speed = pipeline_speed(tiny_model(), TripletLoss(), IMAGES, LABELS, FAST, rounds=2, steps=2)
    assert speed["images_per_second"] > 0 and 0 < speed["pipeline_ratio"] < 10


def test_model_folder_checks_its_hash(tmp_path):
    save_model(tiny_model(), tmp_path, {"a": 1}, {"trained_on": []})
    assert read_model_folder(tmp_path)[0] == {"a": 1}
    (tmp_path / "model.weights.h5").write_bytes(b"other")
    with pytest.raises(WeightsMismatch, match="sha256"):
        read_model_folder(tmp_path)
    (tmp_path / "card.json").unlink()
    with pytest.raises(FileNotFoundError, match="card.json"):
        read_model_folder(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == {"a": 1}


def test_precision_is_put_back_even_after_an_error():
    before = keras.config.dtype_policy().name
    with pytest.raises(RuntimeError):
        with precision("mixed_bfloat16"):
            raise RuntimeError
    assert keras.config.dtype_policy().name == before


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=6))
def test_folds_add_up(values):
    found = aggregate_folds([{"eer": np.array(v), "rows": np.arange(3)} for v in values])
    assert set(found) == {"eer"} and found["eer"]["folds"] == list(range(1, len(values) + 1)) and found["eer"]["values"] == values
    assert found["eer"]["mean"] == pytest.approx(np.mean(values)) and found["eer"]["min"] == min(values) and found["eer"]["max"] == max(values)
    assert np.isnan(found["eer"]["sd"]) if len(values) == 1 else found["eer"]["sd"] == pytest.approx(np.std(values, ddof=1))


def test_a_fold_without_the_figure_does_not_count():
    found = aggregate_folds([{"a": 1.0}, {"a": float("nan"), "b": np.array([4])}, {"a": 3.0, "name": "x"}])
    assert found["a"]["folds"] == [1, 3] and found["a"]["mean"] == 2 and found["b"]["folds"] == [2] and "name" not in found
    assert set(aggregate_folds([{"a": 1, "b": 2}], ["b"])) == {"b"}
    with pytest.raises(ValueError, match="c is in none: there are a, b"):
        aggregate_folds([{"a": 1, "b": 2}], ["c"])


@given(st.floats(width=32, allow_nan=True, allow_infinity=True))
def test_rounding_keeps_eleven_digits(value):
    rounded = float(round_to_half(np.float32(value).reshape(1))[0])
    if not np.isfinite(value):
        assert np.array_equal(rounded, value, equal_nan=True)
    elif 6.2e-5 < abs(value) < 65000:
        assert rounded == float(np.float16(value))
    elif abs(value) > 1.2e-38 and abs(value) < 3e38:
        assert abs(rounded - value) <= abs(value) * 2.0**-11


def test_shipped_weights_are_small_and_the_same_within_a_thousandth(tmp_path):
    def build(seed):
        keras.utils.set_random_seed(seed)
        image = keras.Input((16, 24, 1))
        x = keras.layers.Conv2D(16, 3, strides=2, use_bias=False)(image)
        x = keras.layers.Dropout(0.1)(keras.layers.Flatten()(keras.layers.ReLU()(keras.layers.BatchNormalization()(x))))
        return keras.Model(image, keras.layers.UnitNormalization()(keras.layers.Dense(64)(x)))
    model = build(0)
    fit(model, TripletLoss(), IMAGES, LABELS, FAST, progress=False)
    optimizer, bare = model.optimizer, sum(w.nbytes for w in model.get_weights())
    model.save_weights(tmp_path / "keras.weights.h5")
    assert (tmp_path / "keras.weights.h5").stat().st_size > 2.5 * bare
    size = {}
    for half in (False, True):
        folder = save_model(model, tmp_path / str(half), {}, {}, half=half)
        size[half] = (folder / "model.weights.h5").stat().st_size
        loaded = build(1)
        loaded.load_weights(folder / "model.weights.h5")
        read_model_folder(folder)
        difference = np.abs(embed(loaded, IMAGES) - embed(model, IMAGES)).max()
        assert 0 < difference < 1e-3 if half else difference == 0
        assert sorted(p.name for p in folder.iterdir()) == ["card.json", "config.json", "model.weights.h5"]
    assert model.optimizer is optimizer and size[False] < 1.1 * bare + 40_000 and size[True] < 0.55 * bare + 40_000


def test_groups_come_together():
    """Signers of one text follow each other, every signer still comes once a lap, and the batch depends on seed, epoch and step alone."""
    labels = np.repeat(np.arange(12), 2)
    text = np.repeat(np.arange(12) % 3, 2)
    sampler = PKSampler(labels, signers_per_batch=4, genuine=2, forgeries=0, seed=1, groups=text)
    for epoch in range(3):
        batches = [sampler.batch(epoch, step) for step in range(3)]
        assert all(len(set(text[batch])) == 1 for batch in batches)
        assert sorted(set(labels[np.concatenate(batches)])) == list(range(12))
        assert np.array_equal(batches[0], PKSampler(labels, 4, 2, 0, 1, groups=text).batch(epoch, 0))
    orders = {tuple(labels[sampler.batch(epoch, 0)]) for epoch in range(8)}
    assert len(orders) > 4


def test_an_extra_set_may_say_what_was_written():
    images = np.zeros((12 + 24, 8, 8), np.uint8)
    own, extra = np.repeat(np.arange(3), 4), np.repeat(np.arange(12), 2)
    config = TrainConfig(signers_per_batch=2, genuine=2, forgeries=0, extra_signers_per_batch=4, augmentation=None)
    source = training.make_source(images[:12], own, config, (images[12:], extra, np.repeat(np.arange(12) % 3, 2)))
    for step in range(3):
        labels = source.make(0, step)[1]
        assert len(set(((labels[labels >= 3] - 3) % 3).tolist())) == 1 and len(set(labels[labels < 3].tolist())) == 2


# ---- steps in place of epochs ----

@pytest.mark.parametrize("start, stop", [(0, 5), (3, 4), (2, 2), (4, 1)])
def test_what_is_made_ahead_comes_in_order(start, stop):
    assert list(ahead(lambda n: n * n, start, stop)) == [n * n for n in range(start, stop)]


def test_no_more_than_one_is_made_ahead():
    made = []
    for _ in ahead(made.append, 0, 6):
        break
    assert 1 <= len(made) <= 2


def test_an_error_in_the_making_reaches_the_trainer():
    def make(n):
        if n == 2:
            raise OSError("the disk is gone")
        return n

    seen = []
    with pytest.raises(OSError, match="gone"):
        for n in ahead(make, 0, 5):
            seen.append(n)
    assert seen == [0, 1]


class Steps:
    learning_rate, weight_decay, clip_norm = 0.05, 0.0, 1.0


def line(steps=7):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    compile_steps(model, "mse", Steps, steps)
    return model


def points(n):
    x = np.random.default_rng(n).normal(size=(8, 1)).astype("float32")
    return x, 2 * x - 1


def test_steps_are_logged_looked_at_and_kept(tmp_path):
    looks = []
    history = fit_steps(line(), points, {"step": 0, "history": []}, 7, 3, look=lambda model: looks.append(model.count_params()) or {"seen": float(len(looks))}, folder=tmp_path / "new", progress=False)
    assert [row["step"] for row in history] == [3, 6, 7] and [row["seen"] for row in history] == [1, 2, 3]   # the last steps count, too
    assert all(row["seconds"] >= 0 for row in history) and (tmp_path / "new" / "last.npz").is_file()
    assert fit_steps(line(), points, {"step": 7, "history": history}, 7, 3, progress=False) == history        # nothing is left to do


def test_steps_that_lead_nowhere_stop():
    with pytest.raises(FloatingPointError, match="nan before step 3"):
        fit_steps(line(), lambda n: (points(n)[0], points(n)[1] * np.float32("nan")), {"step": 0, "history": []}, 6, 3, progress=False)


def test_figures_of_ones_own_join_the_history_of_epochs(tmp_path):
    plain = tiny_model()
    expected = fit(plain, TripletLoss(), IMAGES, LABELS, FAST, progress=False)
    model = tiny_model()
    history = fit(model, TripletLoss(), IMAGES, LABELS, FAST, folder=tmp_path, look=lambda seen: {"weights": seen.count_params(), "own": seen is model}, progress=False)
    assert [row["weights"] for row in history] == [model.count_params()] * len(history) and all(row["own"] for row in history)
    assert [row["loss"] for row in history] == [row["loss"] for row in expected]      # looking changes nothing
    assert json.loads(str(np.load(tmp_path / "last.npz")["state"]))["history"] == history
