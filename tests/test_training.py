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
from signver_kit.losses import SupervisedContrastiveLoss, TripletLoss
from signver_kit.training import (Augmentation, BatchSource, OneCycle, PKSampler, TrainConfig, WeightsMismatch, augment, config_from,
                                  cross_validate, embed, labels_of, fit, load_checkpoint, make_optimizer, pair_eers, pipeline_speed, precision,
                                  read_model_folder, save_checkpoint, save_model)

LABELS = np.concatenate([np.repeat(np.arange(5), 6), -np.repeat(np.arange(5), 4) - 1])
IMAGES = np.random.default_rng(0).integers(0, 256, (len(LABELS), 16, 24), dtype=np.uint8)
FAST = TrainConfig(epochs=3, steps_per_epoch=2, signers_per_batch=3, genuine=3, forgeries=1)


def tiny_model(seed=0, units=8):
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.layers.Input((16, 24, 1)), keras.layers.Conv2D(4, 3, 2), keras.layers.BatchNormalization(), keras.layers.ReLU(),
                             keras.layers.Dropout(0.2), keras.layers.Flatten(), keras.layers.Dense(units), keras.layers.UnitNormalization()])


def test_labels_say_who_wrote_and_whose_name():
    table = pd.DataFrame({"signer": ["b", "a", "b"], "kind": ["skilled", "genuine", "genuine"]})
    labels, signers = labels_of(table)
    assert signers == ["a", "b"] and labels.tolist() == [-2, 0, 1] and labels.dtype == np.int32


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
    import os, signal, sys
    import numpy as np
    from test_training import FAST, IMAGES, LABELS, tiny_model
    from signver_kit.devices import set_seed
    from signver_kit.losses import SupervisedContrastiveLoss
    from signver_kit.training import fit
    folder, die_at = sys.argv[1], int(sys.argv[2])
    model = tiny_model()
    if die_at:
        step, calls = model.train_on_batch, iter(range(1000))
        model.train_on_batch = lambda x, y: os.kill(os.getpid(), signal.SIGKILL) if next(calls) == die_at else step(x, y)
    fit(model, SupervisedContrastiveLoss(), IMAGES, LABELS, FAST, validation=(IMAGES, LABELS), folder=folder, progress=False)
    np.savez(os.path.join(folder, "weights.npz"), *model.get_weights())
""")


def test_killed_and_resumed_ends_with_the_same_bits(tmp_path):
    def run(folder, die_at):
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
        return subprocess.run([sys.executable, "-c", SCRIPT, str(folder), str(die_at)], env=env, capture_output=True, text=True)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run(whole, 0).returncode == 0
    assert run(cut, 5).returncode == -signal.SIGKILL  # in the third epoch
    assert not (cut / "weights.npz").exists()
    again = run(cut, 0)
    assert again.returncode == 0, again.stderr
    with np.load(whole / "weights.npz") as a, np.load(cut / "weights.npz") as b:
        assert a.files == b.files and all(np.array_equal(a[n], b[n]) for n in a.files)


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
