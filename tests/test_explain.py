"""What explains a decision: differences are drawn where they are, worst decisions are really wrong ones, bars belong to their signers."""
import subprocess
import sys

import matplotlib

matplotlib.use("Agg")
import cv2  # noqa: E402  (the backend comes first)
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pytest  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from signver_kit.comparisons import signer_errors  # noqa: E402
from signver_kit.descriptors import describe_hog, describe_local  # noqa: E402
from signver_kit.explain import HardestDisplay, MatchDisplay, MatchSide, OcclusionDisplay, SignerErrorDisplay, occlusion_map  # noqa: E402
from signver_kit.images import NoInk, crop_to_ink, place_on_canvas  # noqa: E402
from signver_kit.local import EvidenceTable, evidence, local_distances, residuals  # noqa: E402
from signver_kit.protocols import hardest_pairs  # noqa: E402


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def drawn(loops=(52, 152), wave=True):
    """A wave with loops at these columns, float32 (96, 192)."""
    page = np.zeros((96, 192), np.float32)
    x = np.arange(12, 182)
    if wave:
        cv2.polylines(page, [np.stack([x, 62 + 8 * np.sin(x / 9)], axis=1).round().astype(np.int32)], False, 1.0, 3)
    for centre in loops:
        cv2.ellipse(page, (centre, 34), (15, 19), 20, 0, 360, 1.0, 3)
    return page


WHOLE = drawn()


def contrast(side, columns):
    """Mean value of the ink above the wave within these columns of the canvas, and of all ink outside."""
    inside = np.zeros(side.ink.shape, bool)
    inside[:3 * 50, 3 * columns.start:3 * columns.stop] = True
    outside = np.ones(side.ink.shape, bool)
    outside[:, 3 * columns.start:3 * columns.stop] = False
    values, ink = side.pixels(), side.ink > 0.5
    return values[inside & ink].mean(), values[outside & ink].mean()


# ---- the local match

@pytest.mark.parametrize("lost, kept", [(52, 152), (152, 52)])
def test_a_lost_loop_lights_up_where_it_was(lost, kept):
    display = MatchDisplay.from_images(WHOLE, drawn([kept]))
    there, elsewhere = contrast(display.sides[0], slice(lost - 22, lost + 22))
    assert there > 0.8 and elsewhere < 0.05
    at_kept, _ = contrast(display.sides[1], slice(kept - 22, kept + 22))
    assert at_kept < 0.05


def test_an_added_loop_lights_up_on_the_questioned_side_only():
    one, other = MatchDisplay.from_images(drawn([52]), WHOLE), MatchDisplay.from_images(WHOLE, drawn([52]))
    assert contrast(one.sides[1], slice(130, 174))[0] > 0.8
    for a, b in zip(one.sides, other.sides[::-1]):  # the same two pictures, the other way round
        assert np.array_equal(a.residual, b.residual) and np.array_equal(a.displacement, b.displacement) and np.array_equal(a.ink, b.ink)
    assert one.distance == pytest.approx(other.distance)


@pytest.mark.parametrize("image", [WHOLE, drawn([52]), (255 * WHOLE).astype(np.uint8), crop_to_ink(WHOLE)], ids=["float", "one loop", "uint8", "another size"])
def test_copies_agree_everywhere(image):
    display = MatchDisplay.from_images(image, image.copy())
    assert display.distance == pytest.approx(0, abs=1e-5) and display.arrows_ == [None, None]
    assert all(side.residual.max() < 1e-5 and not side.displacement.any() and side.pixels().max() < 1e-5 for side in display.sides)


@pytest.mark.parametrize("shape", [(96, 192), (60, 300), (200, 120)])
def test_figures_are_those_of_the_matcher(shape):
    rng = np.random.default_rng(shape[0])
    images = [cv2.GaussianBlur((rng.random(shape) > 0.9).astype(np.float32), (0, 0), 2) for _ in range(2)]
    images = [(image > np.quantile(image, 0.9)).astype(np.float32) for image in images]
    display, maps = MatchDisplay.from_images(*images), describe_local(images)
    assert display.distance == pytest.approx(local_distances(maps[0], maps[1])[0, 0], rel=1e-4)
    assert np.allclose(display.sides[0].residual, residuals(maps[0], maps[1])[0, 0]) and display.sides[0].ink.shape == (288, 576)
    small = cv2.resize(display.sides[0].ink, (192, 96), interpolation=cv2.INTER_AREA)
    described = images[0] if shape == (96, 192) else place_on_canvas(crop_to_ink(images[0]), (96, 192), margin=0)
    assert np.corrcoef(small.ravel(), described.ravel())[0, 1] > 0.95, "drawn as it was described"


def test_arrows_point_to_where_the_loop_went():
    display = MatchDisplay.from_images(drawn([60], wave=False), drawn([68], wave=False))  # on the canvas, so nothing is cropped
    for side, sign in zip(display.sides, (1, -1)):
        x, y, dx, dy = side.arrows()
        assert len(x) >= 6 and np.median(dx) == pytest.approx(sign * 24) and np.median(dy) == 0  # one block of 8 pixels, enlarged threefold
        assert (np.abs(x / 3 - 64) < 40).all() and (np.abs(y / 3 - 34) < 40).all()
    assert all(arrows is not None for arrows in display.arrows_)


def test_no_arrow_without_ink_or_match():
    blocks = np.zeros((2, 3))
    side = MatchSide("x", np.zeros((9, 12)), np.array([[1, 0, 1], [1, 0.1, 1.0]]), blocks + [[0.1, 0.1, 0.9], [0.1, 0.1, 0.1]], np.zeros((2, 3, 2), np.int8))
    assert len(side.arrows()[0]) == 0
    moved = side._replace(displacement=np.ones((2, 3, 2), np.int8))
    x, y, dx, dy = moved.arrows()
    assert sorted(zip(y, x)) == [(2.5, 2.5), (5.5, 2.5), (5.5, 8.5)] and set(dx) == set(dy) == {3.0}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 3))
def test_pixels_stay_within_the_values_of_blocks_with_ink(seed, value):
    rng = np.random.default_rng(seed)
    weight = rng.random((4, 7)) * (rng.random((4, 7)) > 0.4)
    weight[1, 1] = 1
    residual = np.where(weight > 0, rng.random((4, 7)), 99)
    side = MatchSide("x", np.zeros((40, 64), np.float32), weight, residual, np.zeros((4, 7, 2)))
    pixels = side.pixels()
    assert pixels.shape == (40, 64) and 0 <= pixels.min() and pixels.max() <= residual[weight > 0].max() + 1e-4
    assert np.allclose(side._replace(residual=np.full((4, 7), value)).pixels()[pixels > 0], value, atol=1e-5)


def test_references_tell_habit_from_slip():
    """A loop that the references have or have not is no difference; one that none of them has, is."""
    habit = [WHOLE, drawn([52]), WHOLE.copy(), drawn([52])]
    expected = MatchDisplay.from_references(habit, WHOLE)
    slip = MatchDisplay.from_references([drawn([52]), drawn([52]), drawn([53])], WHOLE)
    assert contrast(expected.sides[1], slice(130, 174))[0] < 1.1
    there, elsewhere = contrast(slip.sides[1], slice(130, 174))
    assert there > 4 and elsewhere < 1.5
    assert expected.within is not None and expected.distance == pytest.approx(evidence(describe_local(habit), describe_local([WHOLE]))["mean"][0], rel=0.01)


def test_ratio_is_one_where_nothing_is_unusual():
    display = MatchDisplay.from_references([WHOLE] * 3, WHOLE)
    assert all(np.allclose(side.ratio, 1, atol=1e-4) and np.array_equal(side.value, side.ratio) for side in display.sides)


def test_unusual_against_a_slow_loop():
    rng = np.random.default_rng(3)
    images = [drawn([50 + rng.integers(-6, 7), 150 + rng.integers(-6, 7)]) for _ in range(4)]
    display, maps = MatchDisplay.from_references(images[:3], images[3]), describe_local(images)
    own = residuals(maps[:3], maps[:3])
    back, moved = residuals(maps[3], maps[:3], return_displacement=True)
    slow = np.zeros(back.shape[2:])
    for y, x in np.ndindex(*slow.shape):
        best = min(range(3), key=lambda j: back[0, j, y, x])
        v, u = (y, x) + moved[0, best, y, x]
        usual = min(own[best, other, v, u] for other in range(3) if other != best)
        slow[y, x] = (back[0, best, y, x] + 0.1) / (usual + 0.1)
    assert np.allclose(display.sides[1].ratio, slow, rtol=1e-3) and slow.max() > 1.2 > 0.8 > slow.min()
    nearest = int(local_distances(maps[:3], maps[3])[:, 0].argmin())
    usual = np.mean([own[nearest, other] for other in range(3) if other != nearest], axis=0)
    assert np.allclose(display.sides[0].ratio, (residuals(maps[nearest], maps[3])[0, 0] + 0.1) / (usual + 0.1), rtol=1e-4)


def test_match_keeps_to_the_manner_of_displays():
    _, axes = plt.subplots(1, 2)
    display = MatchDisplay.from_images(WHOLE, drawn([52]), names=("A", "B"), ax=axes)
    assert display.ax_[0] is axes[0] and display.figure_ is axes[0].figure and len(display.arrows_) == 2
    assert "A" in axes[0].get_xlabel() and f"{display.distance:.2f}" in axes[0].get_title(loc="left") and "0 agrees" in display.colorbar_.ax.get_ylabel()
    again = display.plot()
    assert again is display and display.figure_ is not axes[0].figure
    several = MatchDisplay.from_references([WHOLE, drawn([52])], WHOLE)
    assert "usual" in several.colorbar_.ax.get_ylabel() and "2 references" in several.ax_[0].get_title(loc="left")
    display.figure_.canvas.draw()
    several.figure_.canvas.draw()


@pytest.mark.parametrize("arguments, options, words", [
    ((WHOLE[None], WHOLE), {}, "2-D"),
    ((WHOLE, 255 * WHOLE), {}, "must lie in"),
    ((WHOLE, 1 - WHOLE), {}, "looks like a scan"),
    ((WHOLE, np.uint8(255 - 255 * WHOLE)), {}, "looks like a scan"),
    ((WHOLE, WHOLE), {"slack": -1}, "slack"),
    ((WHOLE, WHOLE), {"ax": [None]}, "two axes"),
])
def test_match_refuses(arguments, options, words):
    with pytest.raises(ValueError, match=words):
        MatchDisplay.from_images(*arguments, **options)


def test_blank_images_and_single_references_are_refused():
    with pytest.raises(NoInk):
        MatchDisplay.from_images(WHOLE, np.zeros_like(WHOLE))
    with pytest.raises(ValueError, match="two references"):
        MatchDisplay.from_references([WHOLE], WHOLE)


# ---- occlusion

def mean_of_columns(images):
    """A small model: how much ink there is in each of twelve strips, and a constant so that nothing is zero."""
    images = np.asarray(images, np.float64)
    return np.concatenate([images.reshape(len(images), images.shape[1], 12, -1).mean(axis=(1, 3)), np.full((len(images), 1), 0.01)], axis=1)


def slowly(embed, image, references, patch, stride):
    """The map pixel by pixel, a patch at a time."""
    unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)  # noqa: E731
    distance = lambda one: np.mean([1 - unit(embed(one[None]))[0] @ reference for reference in unit(np.atleast_2d(references))])  # noqa: E731
    height, width = image.shape
    starts = [list(range(0, side - patch + 1, stride)) for side in (height, width)]
    starts = [rows + ([side - patch] if rows[-1] != side - patch else []) for rows, side in zip(starts, image.shape)]
    total, count = np.zeros(image.shape), np.zeros(image.shape)
    for y in starts[0]:
        for x in starts[1]:
            covered = image.copy()
            covered[y:y + patch, x:x + patch] = 0
            total[y:y + patch, x:x + patch] += distance(covered) - distance(image)
            count[y:y + patch, x:x + patch] += 1
    return total / count


@pytest.mark.parametrize("patch, stride, chunk", [(10, 10, 64), (11, 4, 7), (9, 5, 1)])
@pytest.mark.parametrize("k", [1, 3])
def test_occlusion_against_a_slow_loop(patch, stride, chunk, k):
    rng = np.random.default_rng(patch)
    image = np.where(rng.random((30, 48)) > 0.8, rng.random((30, 48)), 0).astype(np.float32)
    references = rng.random((k, 13))
    found = occlusion_map(mean_of_columns, image, references if k > 1 else references[0], patch, stride, chunk)
    assert found.shape == image.shape and found.dtype == np.float32
    assert np.allclose(found, slowly(mean_of_columns, image, references, patch, stride), atol=1e-7)


def test_a_loop_too_many_speaks_against():
    change = occlusion_map(describe_hog, WHOLE, describe_hog(drawn([52])))
    mine, extra = (change[:45, c - 20:c + 20][WHOLE[:45, c - 20:c + 20] > 0.5] for c in (52, 152))
    assert extra.mean() < 0 < mine.min()
    row, column = np.unravel_index(change.argmin(), change.shape)
    assert row < 50 and 120 < column < 184
    swapped = occlusion_map(describe_hog, WHOLE, describe_hog(drawn([152])))
    assert np.unravel_index(swapped.argmin(), swapped.shape)[1] < 84


def test_occlusion_hands_the_model_what_it_was_given():
    seen = []

    def embed(images):
        seen.append((images.dtype, images.shape, images.min()))
        return mean_of_columns(images)

    image = (255 * WHOLE).astype(np.uint8)
    change = occlusion_map(embed, image, embed(image[None]), patch=(32, 48), stride=(32, 48), chunk=5)
    assert {dtype for dtype, _, _ in seen} == {np.dtype(np.uint8)} and max(shape[0] for _, shape, _ in seen) <= 5 and image.max() == 255
    assert change.min() >= 0, "nothing of a signature speaks against itself"


def test_places_without_ink_are_zero_and_cost_nothing():
    counts = []

    def embed(images):
        counts.append(len(images))
        return mean_of_columns(images)

    image = np.zeros((48, 48), np.float32)
    image[2:6, 2:46] = 1
    change = occlusion_map(embed, image, np.ones(13), patch=12, stride=12)
    assert counts == [1, 4] and (change[12:] == 0).all() and change[:12].any()


@pytest.mark.parametrize("change, words", [
    ({"reference_embeddings": np.ones((2, 5))}, "must give"),
    ({"reference_embeddings": np.zeros(13)}, "reference_embeddings"),
    ({"reference_embeddings": np.full(13, np.nan)}, "reference_embeddings"),
    ({"reference_embeddings": np.ones((1, 1, 13))}, "reference_embeddings"),
    ({"embed": lambda images: mean_of_columns(images)[0]}, "must give"),
    ({"embed": lambda images: np.zeros((len(images), 13))}, "not zero"),
    ({"image": WHOLE[None]}, "2-D"),
    ({"image": 1 + WHOLE}, "must lie in"),
    ({"image": np.zeros((96, 192))}, "ink"),
    ({"patch": 97}, "patch must fit"),
    ({"patch": 8, "stride": 9}, "patch must fit"),
    ({"stride": 0}, "patch must fit"),
    ({"chunk": 0}, "patch must fit"),
    ({"image": np.pad(np.ones((4, 4)), ((40, 52), (80, 108))), "patch": 24}, "leave some ink"),
])
def test_occlusion_refuses(change, words):
    arguments = {"embed": mean_of_columns, "image": WHOLE, "reference_embeddings": np.ones(13)} | change
    with pytest.raises(ValueError, match=words):
        occlusion_map(**arguments)


def test_occlusion_display_is_centred_and_says_its_unit():
    display = OcclusionDisplay.from_model(mean_of_columns, WHOLE, np.ones(13), patch=24, stride=24, name="questioned")
    low, high = display.image_.get_clim()
    assert low == -high == -np.abs(display.change).max() and "when covered" in display.colorbar_.ax.get_ylabel()
    assert "questioned" in display.ax_.get_title() and f"{display.distance:.3f}" in display.ax_.get_title()
    _, ax = plt.subplots()
    assert OcclusionDisplay(WHOLE, np.zeros_like(WHOLE), top=0.5).plot(ax).image_.get_clim() == (-0.5, 0.5)
    assert OcclusionDisplay(WHOLE, np.zeros_like(WHOLE)).plot(ax).image_.get_clim() == (-1, 1), "nothing changed: all white"
    with pytest.raises(ValueError, match="one shape"):
        OcclusionDisplay(WHOLE, WHOLE[1:])


# ---- the gallery

@pytest.fixture
def scores():
    rng = np.random.default_rng(0)
    kind = np.repeat(["genuine", "skilled", "random"], [40, 40, 20])
    return pd.DataFrame({"signer": np.tile(list("abcd"), 25), "kind": kind, "distance": rng.normal(np.repeat([0.4, 0.7, 1.5], [40, 40, 20]), 0.15),
                         "questioned": np.arange(100), "reference": np.arange(100)[::-1], "path": [f"p{i}" for i in range(100)], "reference_path": [f"r{i}" for i in range(100)]})


def page(path):
    """A picture for every path, told apart by its grey."""
    return np.full((20, 40), hash(path) % 200, np.uint8)


def test_gallery_shows_the_worst_and_only_wrong_decisions(scores):
    display = HardestDisplay.from_scores(scores, page, 0.55, n=3)
    worst = hardest_pairs(scores, 3, threshold=0.55)
    for kind in ("genuine", "skilled"):
        assert display.rows[kind]["path"].tolist() == worst[worst["kind"] == kind]["path"].tolist() and "the 3 hardest" in display.titles_[kind]
        assert display.rows[kind]["error"].unique().tolist() == ["false reject" if kind == "genuine" else "false accept"]
    assert len(display.rows["random"]) == 0 and "none" in display.titles_["random"]
    assert len(display.ax_) == 12 and {ax.get_xlabel() for ax in display.ax_} == {"nearest reference", "questioned"}
    display.figure_.canvas.draw()
    again = HardestDisplay.from_scores(worst, page, 0.55, n=3)
    assert all(again.rows[kind]["path"].tolist() == display.rows[kind]["path"].tolist() for kind in ("genuine", "skilled"))


def test_gallery_does_not_fill_up(scores):
    wrong = int(((scores["kind"] == "genuine") & (scores["distance"] > 0.55)).sum())
    display = HardestDisplay.from_scores(scores, page, 0.55, n=wrong + 5, cols=4)
    assert 0 < wrong == len(display.rows["genuine"]) == len(display.pairs["genuine"]) and f"{wrong}, no more" in display.titles_["genuine"]
    nothing = HardestDisplay.from_scores(scores[scores["kind"] == "skilled"], page, -9.0)
    assert nothing.ax_ == [] and list(nothing.titles_) == ["genuine", "skilled"] and all("none" in words for words in nothing.titles_.values())


def test_gallery_reads_what_belongs_together(scores):
    asked = []
    display = HardestDisplay.from_scores(scores, lambda path: asked.append(path) or page(path), 0.55, n=1)
    row = display.rows["genuine"].iloc[0]
    assert asked[:2] == [row["reference_path"], row["path"]]
    asked.clear()
    HardestDisplay.from_scores(scores.drop(columns=["path", "reference_path"]), lambda row: asked.append(row) or page(row), 0.55, n=1)
    assert asked[:2] == [row["reference"], row["questioned"]]


def test_a_signature_is_listed_once(scores):
    twice = pd.concat([scores, scores.assign(distance=scores["distance"] + 0.01)], ignore_index=True)
    rows = HardestDisplay.from_scores(twice, page, 0.55, n=50).rows["genuine"]
    assert not rows["path"].duplicated().any()


@pytest.mark.parametrize("change, words", [
    (lambda s: {"scores": s.drop(columns="kind")}, "kind"),
    (lambda s: {"scores": s.drop(columns="reference_path")}, "reference_path"),
    (lambda s: {"scores": s[:0]}, "0 rows"),
    (lambda s: {"scores": s.assign(distance=np.nan)}, "NaN"),
    (lambda s: {"threshold": np.inf}, "threshold"),
    (lambda s: {"n": 0}, "whole one"),
    (lambda s: {"read": lambda path: np.zeros((2, 3, 4, 5))}, "an image must be"),
])
def test_gallery_refuses(scores, change, words):
    with pytest.raises(ValueError, match=words):
        HardestDisplay.from_scores(**{"scores": scores, "read": page, "threshold": 0.55} | change(scores))


# ---- who bears the errors

def test_signer_errors_are_drawn_as_they_are(scores):
    table = signer_errors(scores, 0.55)
    display = SignerErrorDisplay.from_rates(table)
    assert (np.diff(display.table["frr"]) <= 0).all() and sorted(display.table["signer"]) == list("abcd")
    assert [text.get_text() for text in display.ax_[0].get_yticklabels()] == display.table["signer"].tolist()
    for ax, name, kind in zip(display.ax_, display.rates, ("genuine", "skilled")):
        wrong = (scores["distance"] <= 0.55) != (scores["kind"] == "genuine")
        assert display.overall[name] == pytest.approx(wrong[scores["kind"] == kind].mean())
        drawn_at = np.concatenate([container.lines[0].get_xdata() for container in ax.containers])
        assert np.allclose(np.sort(drawn_at), np.sort(100 * display.table[name])) and "%" in ax.get_xlabel() and f"{100 * display.overall[name]:.1f}" in ax.get_title()
    display.figure_.canvas.draw()


def rates(values, n=20, half=0.1, name="frr"):
    values = np.asarray(values, float)
    return pd.DataFrame({"signer": [f"s{i}" for i in range(len(values))], name: values, f"{name}_lo": np.clip(values - half, 0, 1), f"{name}_hi": np.clip(values + half, 0, 1), f"{name}_n": n})


def test_only_intervals_wholly_above_stand_out():
    display = SignerErrorDisplay.from_rates(rates([0.0, 0.1, 0.15, 0.6]), rates=["frr"])
    assert display.worse == {"frr": ["s3"]} and display.table["signer"].tolist() == ["s3", "s2", "s1", "s0"]
    assert display.overall["frr"] == pytest.approx(0.2125)
    assert SignerErrorDisplay.from_rates(rates([0.3] * 5), rates=["frr"]).worse == {"frr": []}


def test_a_signer_without_trials_has_no_bar():
    table = rates([0.2, 0.4, 0.3], n=[10, 0, 30])
    table.loc[1, ["frr", "frr_lo", "frr_hi"]] = np.nan
    display = SignerErrorDisplay.from_rates(table, rates=["frr"])
    assert display.overall["frr"] == pytest.approx((0.2 * 10 + 0.3 * 30) / 40) and len(display.table) == 3
    assert sum(len(container.lines[0].get_xdata()) for container in display.ax_[0].containers) == 2


def test_fifty_five_signers_can_be_read():
    display = SignerErrorDisplay.from_rates(rates(np.linspace(0, 0.5, 55)), rates=["frr"])
    display.figure_.canvas.draw()
    boxes = [text.get_window_extent() for text in display.ax_[0].get_yticklabels()]
    assert len(boxes) == 55 and all(not a.overlaps(b) for a, b in zip(boxes, boxes[1:]))


def test_other_rates_and_given_axes():
    table = rates([0.1, 0.2]).merge(rates([0.3, 0.1], name="time_out"))
    _, axes = plt.subplots(1, 2, sharey=True)
    display = SignerErrorDisplay.from_rates(table, rates=("frr", "time_out"), ax=axes)
    assert display.ax_[1] is axes[1] and display.figure_ is axes[0].figure and "time out" in axes[1].get_xlabel()
    with pytest.raises(ValueError, match="one axes a rate"):
        display.plot(axes[0])


@pytest.mark.parametrize("table, words", [
    (rates([0.1, 0.2]).drop(columns="frr_lo"), "frr_lo"),
    (rates([0.1, 0.2])[:0], "0 rows"),
    (rates([10, 20]), "divide percent"),
    (rates([0.1, 0.2]).assign(frr_lo=0.15), "fractions"),
    (rates([0.1, 0.2], n=0), "trials"),
    (rates([0.1, 0.2]).assign(signer="a"), "more than once"),
    (rates([0.1, np.nan]), "fractions"),
])
def test_rates_are_checked(table, words):
    with pytest.raises(ValueError, match=words):
        SignerErrorDisplay.from_rates(table, rates=["frr"])


# ---- the module

def test_needs_neither_keras_nor_matplotlib_to_import():
    program = "import sys, signver_kit.explain; heavy = {'keras', 'tensorflow', 'torch', 'jax', 'matplotlib'} & set(sys.modules); assert not heavy, heavy"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_table_and_display_agree():
    """What a display draws is what the EvidenceTable scores."""
    images = [WHOLE, drawn([52]), drawn([50, 155])]
    table = EvidenceTable(describe_local(images))
    assert MatchDisplay.from_images(images[0], images[2]).distance == pytest.approx(table.distances([0], [2])[0, 0], rel=0.01)
