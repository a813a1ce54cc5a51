"""The cleaner: networks that begin by doing nothing, losses against references, reproducible windows, resumed training, any picture in and the same shape out."""
import json

import cv2
import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from signver_kit import cleaner as module
from signver_kit import training
from signver_kit.cleaner import (CLEANER_RECIPES, CLEANING_LOSSES, Cleaner, CleanerConfig, CleaningConfig, WindowSource, build_cleaner, clean_pool, darkness,
                                 fit_cleaner, ssim_map, train_cleaner, training_window)
from signver_kit.documents import Dirt, DirtyPairs, dirty
from signver_kit.images import UnreadableImage
from signver_kit.synthetic import SyntheticSigners
from signver_kit.training import WeightsMismatch, ahead

from backends import numpy

SMALL = CleanerConfig(channels=(4, 8))
QUICK = CleaningConfig(steps=12, batch=4, window=(48, 64), sizes=(50, 80), every=4, echo=2, loss="cross_entropy")


@pytest.fixture(scope="module")
def pool():
    return clean_pool(SyntheticSigners(3, seed=1, genuine=2, forgeries=0).set)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A cleaner that has seen very little, and its folder."""
    folder = tmp_path_factory.mktemp("cleaner")
    return train_cleaner("tiny", folder, progress=False), folder


@pytest.fixture(scope="module")
def shipped():
    return Cleaner().load()


@pytest.fixture(scope="module")
def pairs():
    made = DirtyPairs(8, seed=31)
    return [made[k] for k in range(8)]


# ---- what the network sees ----

def test_darkness_is_the_clean_picture_where_nothing_but_paper_was_added():
    clean = DirtyPairs(1, seed=3)[0].clean
    pair = dirty(clean, 0, 0, Dirt(lines=0, words=0, specks=0, stamp=0, box=0, fold=0, uneven=1, paper=(210, 210), blur=(0, 0), noise=(0, 0), jpeg=0))
    assert np.median(pair.dirty) < 205                                         # shaded paper
    assert np.abs(darkness(pair.dirty).astype(int) - (255 - pair.clean.astype(int))).mean() < 4


@given(st.integers(8, 90), st.integers(8, 90), st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_darkness_keeps_the_size_and_a_blank_sheet_blank(height, width, seed):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    assert darkness(noise).shape == darkness(noise, "otsu").shape == (height, width)
    assert set(np.unique(darkness(noise, "otsu"))) <= {0, 255}
    assert not darkness(np.full((height, width), 200, np.uint8)).any()


# ---- networks ----

@given(st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=6, deadline=None)
def test_an_untrained_unet_returns_what_it_is_given(rows, columns):
    x = np.random.default_rng(rows).random((2, 8 * rows, 8 * columns, 1)).astype(np.float32)
    y = numpy(build_cleaner(SMALL)(x))
    assert y.shape == x.shape and np.abs(y - np.clip(x, 0.01, 0.99)).max() < 1e-5


def test_the_autoencoder_has_signvers_parameters():
    model = build_cleaner(CleanerConfig(network="autoencoder", levels=4, filters=4, dropout=0.3))
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds.count("MaxPooling2D") == kinds.count("Conv2DTranspose") == kinds.count("Dropout") == 4
    assert [layer.rate for layer in model.layers if type(layer).__name__ == "Dropout"] == [0.3] * 4
    assert [layer.filters for layer in model.layers if type(layer).__name__ == "Conv2D"][:8] == [4, 4, 8, 8, 16, 16, 32, 32]


def test_bfloat16_computes_the_same_up_to_its_precision():
    x = np.random.default_rng(0).random((1, 32, 48, 1)).astype(np.float32)
    coarse, fine = (build_cleaner(SMALL, policy) for policy in ("mixed_bfloat16", "float32"))
    keras.utils.set_random_seed(3)
    for model in (coarse, fine):
        model.get_layer("change").set_weights([np.random.default_rng(1).normal(0, 0.3, w.shape) for w in model.get_layer("change").get_weights()])
    coarse.set_weights(fine.get_weights())
    assert coarse.output.dtype == "float32" and 0 < np.abs(numpy(coarse(x)) - numpy(fine(x))).max() < 0.1


# ---- losses ----

def random_pictures(seed=0, shape=(2, 30, 40, 1)):
    rng = np.random.default_rng(seed)
    truth = (rng.random(shape) < 0.1) * rng.random(shape)
    return truth.astype(np.float32), rng.uniform(0.01, 0.99, shape).astype(np.float32)


def test_cross_entropy_and_its_weighted_form_by_hand():
    truth, output = random_pictures()
    plain = -(truth * np.log(output) + (1 - truth) * np.log(1 - output))[..., 0]
    assert np.allclose(CLEANING_LOSSES["cross_entropy"](truth, output), plain, atol=1e-4)
    near = np.stack([cv2.dilate(t[..., 0], np.ones((7, 7))) > 0.15 for t in truth])
    weights = 1 + 4 * near
    assert np.allclose(CLEANING_LOSSES["ink_weighted"](truth, output), plain * weights / weights.mean(), rtol=1e-3, atol=1e-4)


def test_ssim_agrees_with_scikit_image():
    truth, output = random_pictures(4)
    for a, b, ours in zip(truth, output, numpy(ssim_map(truth, output))):
        theirs = structural_similarity(a[..., 0], b[..., 0], gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, full=True)[1]
        assert np.allclose(ours[5:-5, 5:-5, 0], theirs[5:-5, 5:-5], atol=1e-4)


@pytest.mark.parametrize("name", CLEANING_LOSSES)
def test_every_loss_likes_the_truth_best(name):
    truth, output = random_pictures(7)
    loss = CLEANING_LOSSES[name]
    mean = lambda picture: float(np.mean(numpy(loss(truth, picture.astype(np.float32)))))
    at_truth = mean(np.clip(truth, 0.001, 0.999))
    assert at_truth < min(mean(output), mean(np.full_like(truth, 0.001)), mean(1 - truth), mean(np.clip(truth + 0.05, 0, 0.999)))


# ---- training pairs ----

def test_windows_are_functions_of_seed_and_number(pool):
    first, again, other = (training_window(pool[0], seed, 5, (64, 96), (50, 90)) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again)) and not np.array_equal(first[0], other[0])
    assert {x.shape for x in first} == {(64, 96)} and {x.dtype for x in first} == {np.dtype(np.uint8)}


@given(st.integers(0, 10**6), st.tuples(st.integers(16, 120), st.integers(16, 120)), st.tuples(st.integers(30, 60), st.integers(60, 200)))
@settings(max_examples=15, deadline=None)
def test_windows_of_any_size_hold_the_clean_signature(index, size, sizes):
    clean = np.full((40, 100), 255, np.uint8)
    clean[15:25, 10:90] = 30
    dirt, white = training_window(clean, 0, index, size, sizes)
    assert dirt.shape == white.shape == size


def test_a_batch_is_a_function_of_its_number_and_echoes(pool):
    a, b = WindowSource(pool, QUICK), WindowSource(pool, QUICK)
    list(ahead(a.batch, 0, 4))                                                 # another history
    for n in (0, 3, 9):
        assert all(np.array_equal(x, y) for x, y in zip(a.batch(n), b.batch(n)))
    assert np.array_equal(a.batch(7)[1][2:], a.batch(3)[1][:2, :, ::-1])       # the same windows four batches later, mirrored
    with pytest.raises(ValueError, match="multiple of echo"):
        WindowSource(pool, CleaningConfig(batch=5, echo=2))


def test_a_pool_leaves_out_blank_pictures_and_refuses_nothing_else():
    ink = np.full((60, 90), 250, np.uint8)
    ink[20:30, 10:80] = 10
    assert len(clean_pool([ink, np.full((50, 50), 255, np.uint8)])) == 1
    with pytest.raises(ValueError, match="at least one signature"):
        clean_pool([np.full((50, 50), 255, np.uint8)])


# ---- training ----

def fresh():
    keras.utils.set_random_seed(5)
    return build_cleaner(SMALL)


def test_an_interrupted_run_ends_with_the_same_weights(pool, tmp_path, monkeypatch):
    whole = fresh()
    fit_cleaner(whole, pool, QUICK, progress=False)
    stopped, save = fresh(), training.save_checkpoint

    def stop(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "save_checkpoint", stop)
    with pytest.raises(KeyboardInterrupt):
        fit_cleaner(stopped, pool, QUICK, folder=tmp_path, progress=False)
    monkeypatch.undo()
    resumed = fresh()
    history = fit_cleaner(resumed, pool, QUICK, folder=tmp_path, progress=False)
    assert [row["step"] for row in history] == [4, 8, 12]
    assert all(np.array_equal(a, b) for a, b in zip(whole.get_weights(), resumed.get_weights()))
    with pytest.raises(ValueError, match="learning_rate was 0.003 and is 0.1"):
        fit_cleaner(fresh(), pool, CleaningConfig(**{**QUICK.__dict__, "learning_rate": 0.1}), folder=tmp_path)


def test_a_budget_of_seconds_decides_the_steps_and_is_remembered(pool, tmp_path):
    history = fit_cleaner(fresh(), pool, QUICK, folder=tmp_path, seconds=0.5, progress=False)
    assert history[-1]["step"] >= 10
    assert fit_cleaner(fresh(), pool, QUICK, folder=tmp_path, seconds=500, progress=False) == history


def test_bad_training_is_refused(pool):
    with pytest.raises(ValueError, match="loss must be one of"):
        fit_cleaner(fresh(), pool, CleaningConfig(loss="mse"))
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        fit_cleaner(fresh(), [np.full((40, 90), 0, np.uint8)], CleaningConfig(**{**QUICK.__dict__, "learning_rate": float("nan")}), progress=False)


# ---- cleaning ----

def test_every_form_of_picture_comes_back_in_its_shape(trained):
    cleaner, _ = trained
    pictures = np.stack([DirtyPairs(3, seed=4, size=(60, 100))[k].dirty for k in range(3)])
    colour = np.repeat(pictures[..., None], 3, -1)
    for given_, shape in ((pictures, pictures.shape), (pictures[0], (60, 100)), (pictures[..., None], (3, 60, 100, 1)), (colour, colour.shape), (colour[0], (60, 100, 3)),
                          (pictures / 255, pictures.shape), (pictures[:0], (0, 60, 100))):
        done = cleaner.clean(given_)
        assert done.shape == shape and done.dtype == np.float32 and (done.size == 0 or 0 <= done.min() <= done.max() <= 1)
    mixed = [pictures[0], colour[1][:50], pictures[2][:33, :77]]
    assert [x.shape for x in cleaner.clean(mixed)] == [x.shape for x in mixed] and cleaner.clean([]) == []


def test_a_picture_is_cleaned_the_same_alone_and_among_others(shipped, pairs):
    together = shipped.clean([p.dirty for p in pairs])
    for pair, picture in zip(pairs, together):
        assert np.abs(shipped.clean(pair.dirty) - picture).max() < 1e-3
    assert np.abs(shipped.clean(pairs[0].dirty / 255) - together[0]).max() < 0.02


@given(st.integers(1, 40), st.integers(1, 900), st.integers(0, 9))
@settings(max_examples=10, deadline=None)
def test_no_size_is_too_odd(shipped, height, width, seed):
    picture = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    done = shipped.clean(picture)
    assert done.shape == picture.shape and np.isfinite(done).all()


def test_files_bytes_and_bad_pictures(shipped, pairs, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), pairs[0].dirty)
    from_array = shipped.clean(pairs[0].dirty)
    assert np.allclose(shipped.clean(str(tmp_path / "a.png")), from_array, atol=1e-5) and np.allclose(shipped.clean([(tmp_path / "a.png").read_bytes()])[0], from_array, atol=1e-5)
    (tmp_path / "b.png").write_bytes(b"not a picture")
    with pytest.raises(UnreadableImage, match="picture 1: "):
        shipped.clean([pairs[0].dirty, tmp_path / "b.png"])
    for bad in (np.zeros((40, 50, 4), np.uint8), np.zeros((2, 3, 40, 50, 1), np.uint8), np.full((40, 50), 7.0)):
        with pytest.raises(ValueError):
            shipped.clean(bad)


# ---- the shipped weights ----

def test_the_shipped_weights_clean_what_they_never_saw(shipped, pairs):
    from signver_kit.quality import cleaning_metrics
    rows = [cleaning_metrics(picture, pair) for picture, pair in zip(shipped.clean([p.dirty for p in pairs]), pairs)]
    mean = lambda name: np.nanmean([row[name] for row in rows])
    assert mean("psnr") > mean("psnr_input") + 6 and mean("stroke_f") > 0.8 > mean("stroke_f_input") and mean("print_left") < 0.2 and mean("ink_lost") < 0.25


def test_large_dark_and_coloured_pictures(shipped, pairs):
    pair = next(p for p in pairs if "words" in p.parts)
    once = shipped.clean(pair.dirty)
    large = cv2.resize(pair.dirty, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    assert np.abs(cv2.resize(shipped.clean(large), pair.dirty.shape[::-1], interpolation=cv2.INTER_AREA) - once).mean() < 0.03
    blue = np.repeat(pair.dirty[..., None], 3, -1)
    blue[pair.ink] = (60, 80, 200)
    done = shipped.clean(blue)
    kept = pair.ink & (done.min(-1) < 0.6)
    assert kept.sum() > 0.5 * pair.ink.sum() and (done[kept][:, 2] - done[kept][:, 0]).mean() > 0.25      # blue stays blue
    assert (done[~(pair.ink | pair.print)] > 0.9).mean() > 0.97
    assert (shipped.clean(np.full((90, 150, 3), 220, np.uint8)) > 0.95).all()
    for picture in (pair.dirty, blue):                                                                     # light writing on dark paper comes back dark on light
        inverted, plain = shipped.clean(255 - picture), shipped.clean(picture)
        assert np.abs(inverted - plain)[pair.ink].mean() < 0.15


def test_the_shipped_card_says_what_may_be_passed_on(shipped):
    size = (module.SHIPPED_CLEANER / "model.weights.h5").stat().st_size
    assert set(shipped.card["trained_on"]) <= {"synthetic", "crossmedia"} and "MIT" in shipped.card["terms"] and size <= 6e6
    recipe = CLEANER_RECIPES["default"]
    assert shipped.card["recipe"]["training"]["steps"] == recipe.training.steps and shipped.config == recipe.config


# ---- on disk ----

def test_a_folder_is_whole_or_refused(trained, tmp_path):
    cleaner, folder = trained
    picture = DirtyPairs(1, seed=2)[0].dirty
    assert np.allclose(cleaner.clean(picture), Cleaner().load(folder).clean(picture), atol=1e-5)
    cleaner.save(tmp_path / "copy", {"note": "mine"})
    assert json.loads((tmp_path / "copy" / "card.json").read_text())["note"] == "mine"
    weights = tmp_path / "copy" / "model.weights.h5"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(WeightsMismatch):
        Cleaner().load(tmp_path / "copy")
    with pytest.raises(FileNotFoundError):
        Cleaner().load(tmp_path / "nowhere")
    with pytest.raises(RuntimeError, match="load"):
        Cleaner().clean(picture)
    with pytest.raises(ValueError, match="a recipe is one of"):
        train_cleaner("huge", tmp_path)
