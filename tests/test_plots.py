"""What the plots draw: the numbers of metrics, with axes, units and titles; one colour for one kind; refusals by name."""
import json
import subprocess
import sys
from time import perf_counter
from types import SimpleNamespace

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (the backend comes first)
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from matplotlib.colors import to_rgb  # noqa: E402
from matplotlib.patches import Rectangle  # noqa: E402
from scipy.stats import norm  # noqa: E402
from skimage.color import deltaE_ciede2000, rgb2lab  # noqa: E402
from sklearn.decomposition import PCA  # noqa: E402
from sklearn.metrics import confusion_matrix  # noqa: E402

from signver_kit.metrics import auc, det_points, eer, far_frr, roc_points  # noqa: E402
from signver_kit.plots import (KIND_COLOURS, ConfusionDisplay, DetDisplay, RocDisplay, ScoreDisplay, before_after,  # noqa: E402
                               hardest_trials, plot_boxes, plot_embeddings_2d, plot_embeddings_3d, plot_history, plot_pairs, show_images)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def trials():
    rng = np.random.default_rng(0)
    kind = np.repeat(["genuine", "skilled", "random"], [60, 50, 70])
    return kind == "genuine", rng.normal(np.repeat([0.3, 0.5, 0.8], [60, 50, 70]), 0.12), kind


@pytest.fixture
def cloud():
    rng = np.random.default_rng(1)
    signer = np.repeat(["1", "2", "10"], 8)
    return rng.normal(size=(24, 6)) * [5, 3, 2, 1, 1, 1] + 4 * rng.normal(size=(3, 6)).repeat(8, axis=0), signer, np.tile(["genuine", "skilled"], 12)


def texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def explained(ax):
    """Both axes are labelled and there is a title."""
    return bool(ax.get_xlabel() and ax.get_ylabel() and ax.get_title())


# ---- displays

def test_roc_draws_the_points_of_metrics_in_percent(trials):
    y, distance, _ = trials
    display = RocDisplay.from_predictions(y, distance, name="HOG")
    points = roc_points(y, distance)
    np.testing.assert_allclose(display.line_.get_xdata(), 100 * points.far)
    np.testing.assert_allclose(display.line_.get_ydata(), 100 * (1 - points.frr))
    assert f"HOG: AUC {auc(y, distance):.3f}, EER {100 * eer(y, distance).value:.1f} %" in texts(display.ax_)
    assert explained(display.ax_) and "%" in display.ax_.get_xlabel() and "%" in display.ax_.get_ylabel()
    assert display.figure_ is display.ax_.figure


def test_det_draws_normal_deviates_and_labels_them_in_percent(trials):
    y, distance, _ = trials
    display = DetDisplay.from_predictions(y, distance)
    points = det_points(y, distance)
    np.testing.assert_allclose(display.line_.get_xdata(), points.far_deviate)
    np.testing.assert_allclose(display.line_.get_ydata(), points.frr_deviate)
    for ticks, labels in ((display.ax_.get_xticks(), display.ax_.get_xticklabels()), (display.ax_.get_yticks(), display.ax_.get_yticklabels())):
        np.testing.assert_allclose(100 * norm.cdf(ticks), [float(label.get_text()) for label in labels])
    assert explained(display.ax_) and "%" in display.ax_.get_xlabel() and "%" in display.ax_.get_ylabel()
    assert display.marker_ is None


def test_det_marks_where_the_frozen_threshold_really_works(trials):
    y, distance, _ = trials
    display = DetDisplay.from_predictions(y, distance, threshold=0.4)
    rates = far_frr(y, distance, 0.4)
    assert display.marker_.get_xdata()[0] == pytest.approx(norm.ppf(rates.far))
    assert display.marker_.get_ydata()[0] == pytest.approx(norm.ppf(rates.frr))
    assert f"frozen threshold: FAR {100 * rates.far:.1f} %, FRR {100 * rates.frr:.1f} %" in texts(display.ax_)
    none_wrong = DetDisplay.from_predictions([1, 1, 0, 0], [0, 1, 2, 3], threshold=1.5)  # no error: at half of one in two
    assert none_wrong.marker_.get_xdata()[0] == pytest.approx(norm.ppf(0.25))


def test_the_whole_curve_of_a_bad_verifier_is_in_view(trials):
    y, distance, _ = trials
    good, bad = DetDisplay.from_predictions(y, distance), DetDisplay.from_predictions(y, -distance)
    assert norm.cdf(good.ax_.get_xlim()[1]) == pytest.approx(0.6)
    assert bad.ax_.get_xlim()[1] >= bad.line_.get_xdata().max()


@pytest.mark.parametrize("display", [RocDisplay, DetDisplay])
def test_overlaid_displays_share_axes_guides_and_the_colours_of_kinds(display, trials):
    y, distance, kind = trials
    skilled, random = kind != "random", kind != "skilled"
    first = display.from_predictions(y[skilled], distance[skilled], name="skilled")
    second = display.from_predictions(y[random], distance[random], name="random", ax=first.ax_)
    other = display.from_predictions(y, distance, name="mine", ax=first.ax_, color="black", linewidth=3)
    assert second.ax_ is first.ax_ and len(plt.get_fignums()) == 1
    assert len(first.ax_.lines) == 4  # three curves, one guide line
    assert (first.line_.get_color(), second.line_.get_color()) == (KIND_COLOURS["skilled"], KIND_COLOURS["random"])
    assert (other.line_.get_color(), other.line_.get_linewidth()) == ("black", 3)
    for line in (first.line_, second.line_):
        shown = (line.get_ydata() < first.ax_.get_ylim()[1]) & (line.get_xdata() < first.ax_.get_xlim()[1])
        assert (line.get_xdata()[shown] >= first.ax_.get_xlim()[0]).all() and (line.get_ydata()[shown] >= first.ax_.get_ylim()[0]).all()


@pytest.mark.parametrize("order", [1, -1])
def test_the_det_view_holds_every_overlaid_curve(order, trials):
    y, distance, kind = trials
    curves = [(y, -distance), (y[kind != "skilled"], distance[kind != "skilled"])][::order]
    first = DetDisplay.from_predictions(*curves[0])
    both = (first.ax_.get_xlim(), DetDisplay.from_predictions(*curves[1]).ax_.get_xlim())
    DetDisplay.from_predictions(*curves[1], ax=first.ax_)
    assert first.ax_.get_xlim() == first.ax_.get_ylim() == (min(both[0][0], both[1][0]), max(both[0][1], both[1][1]))


def test_displays_of_stored_numbers_need_no_scores():
    assert texts(RocDisplay([0, 0.1, 1], [1, 0.2, 0]).plot().ax_) == ["guessing"]
    assert "a: EER 10.0 %" in texts(RocDisplay([0, 0.1, 1], [1, 0.2, 0], eer=0.1, name="a").plot().ax_)
    assert "EER 10.0 %" in texts(DetDisplay([-2, -1], [-1, -2], eer=0.1).plot().ax_)


def test_score_histograms_are_shares_of_each_kind_with_the_errors_at_the_threshold(trials):
    y, distance, kind = trials
    display = ScoreDisplay.from_predictions(y, distance, kind=kind, threshold=0.42, name="HOG", bins=20)
    assert list(display.shares) == ["genuine", "skilled", "random"] and len(display.edges) == 21
    for name, share in display.shares.items():
        np.testing.assert_allclose(share, np.histogram(distance[kind == name], display.edges)[0] / np.sum(kind == name))
    skilled = kind != "random"
    assert display.errors["skilled"] == pytest.approx(far_frr(y[skilled], distance[skilled], 0.42).far)
    assert display.errors["genuine"] == pytest.approx(far_frr(y, distance, 0.42).frr)
    drawn = {patch.get_label().split(" ")[0]: to_rgb(patch.get_edgecolor()) for patch in display.ax_.patches if " " in patch.get_label()}
    assert drawn == {name: to_rgb(KIND_COLOURS[name]) for name in display.shares}
    assert display.ax_.lines[0].get_xdata()[0] == 0.42 and "frozen threshold 0.42" in texts(display.ax_)
    assert explained(display.ax_) and "%" in display.ax_.get_ylabel() and display.ax_.get_title().startswith("HOG: ")


def test_score_histograms_without_kinds_or_threshold(trials):
    y, distance, _ = trials
    display = ScoreDisplay.from_predictions(y, distance)
    assert list(display.shares) == ["genuine", "impostor"] and not display.errors and not display.ax_.lines


def test_confusion_counts_what_scikit_learn_counts(trials):
    y, distance, kind = trials
    pooled = ConfusionDisplay.from_predictions(y, distance, threshold=0.42)
    np.testing.assert_array_equal(pooled.counts, confusion_matrix(~y, distance > 0.42))
    display = ConfusionDisplay.from_predictions(y, distance, threshold=0.42, kind=kind)
    assert display.kinds == ["genuine", "skilled", "random"] and display.counts.sum(axis=1).tolist() == [60, 50, 70]
    assert len([patch for patch in display.ax_.patches if isinstance(patch, Rectangle)]) == 3  # the wrong decision of each row
    shown = " ".join(text.get_text() for text in display.ax_.texts)
    assert f"FRR {100 * far_frr(y, distance, 0.42).frr:.1f} %" in shown and f"({display.counts[1, 0]})" in shown
    assert explained(display.ax_) and "0.42" in display.ax_.get_title()


def test_displays_of_extreme_scores_are_drawn():
    for y, distance in (([1, 0], [0.5, 0.5]), ([1, 1, 0, 0], [0, 0, 1, 1]), ([0, 1], [1, 2])):
        for display in (RocDisplay.from_predictions(y, distance), DetDisplay.from_predictions(y, distance, threshold=0.5),
                        ScoreDisplay.from_predictions(y, distance, threshold=0.5), ConfusionDisplay.from_predictions(y, distance, threshold=0.5)):
            display.figure_.canvas.draw()


def test_a_million_scores_are_drawn_in_seconds_with_few_points():
    rng = np.random.default_rng(0)
    y = rng.random(1_000_000) < 0.5
    distance = rng.normal(size=y.size) + ~y
    start = perf_counter()
    for display in (RocDisplay.from_predictions(y, distance), DetDisplay.from_predictions(y, distance)):
        display.figure_.canvas.draw()
        assert len(display.line_.get_xdata()) <= 2000
    ScoreDisplay.from_predictions(y, distance, threshold=0.5).figure_.canvas.draw()
    assert perf_counter() - start < 10


@pytest.mark.parametrize("change, message", [
    (dict(kind=["genuine", "genuine", "skilled"]), "exactly where y is 1, got kind 'genuine' with y 0 in row 1"),
    (dict(kind=["genuine", "skilled"]), "kind must have one entry a trial"),
    (dict(threshold=np.nan), "threshold must be one number, got nan"),
    (dict(threshold=[0.1, 0.2, 0.3]), "threshold must be one number"),
    (dict(distance=[0.1, np.nan, 0.2]), "must be finite"),
    (dict(y=[1, 1, 1]), "3 genuine and no impostor"),
])
def test_displays_refuse(change, message):
    call = {"y": [1, 0, 0], "distance": [0.1, 0.2, 0.3], "threshold": 0.15} | change
    for display in (ScoreDisplay, ConfusionDisplay):
        with pytest.raises(ValueError, match=message):
            display.from_predictions(call["y"], call["distance"], **{k: v for k, v in call.items() if k not in ("y", "distance")})


def test_roc_and_det_refuse_what_metrics_refuse():
    for display in (RocDisplay, DetDisplay):
        with pytest.raises(ValueError, match="no impostor"):
            display.from_predictions([1, 1], [0.1, 0.2])
    assert not plt.get_fignums()  # and leave no empty figure behind


# ---- colours

# Machado, Oliveira and Fernandes (2009), severity 1.0, in linear RGB
DEFICIENCY = {
    "none": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("who", DEFICIENCY)
def test_kinds_stay_apart_for_every_reader(who):
    colours = np.array([to_rgb(KIND_COLOURS[kind]) for kind in ("genuine", "skilled", "random")])
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4) @ np.transpose(DEFICIENCY[who])
    linear = linear.clip(0, 1)
    seen = rgb2lab(np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)[None])[0]
    assert min(deltaE_ciede2000(seen[i], seen[j]) for i in range(3) for j in range(i)) > 20


# ---- embeddings

def test_embeddings_2d_are_the_principal_components_of_scikit_learn(cloud):
    embeddings, signer, kind = cloud
    ax = plot_embeddings_2d(embeddings, signer, kind)
    pca = PCA(2).fit(embeddings)
    drawn = np.asarray(ax.collections[0].get_offsets())
    np.testing.assert_allclose(np.abs(drawn), np.abs(pca.transform(embeddings)), atol=1e-9)
    assert f"({100 * pca.explained_variance_ratio_[0]:.0f} %" in ax.get_xlabel() and f"({100 * pca.explained_variance_ratio_[1]:.0f} %" in ax.get_ylabel()
    assert explained(ax) and "3 signers" in ax.get_title()
    assert [text for text in texts(ax) if text.isdigit()] == ["1", "2", "10"]  # in the order of counting


def test_more_than_ten_signers_are_coloured_by_kind(cloud):
    embeddings, _, kind = cloud
    ax = plot_embeddings_2d(embeddings, np.arange(24), kind)
    assert set(texts(ax)) == {"genuine", "skilled"}
    assert {to_rgb(colour) for colour in ax.collections[0].get_facecolors()[:, :3]} == {to_rgb(KIND_COLOURS[k]) for k in ("genuine", "skilled")}
    assert len(set(texts(plot_embeddings_2d(embeddings, np.arange(24), kind, colour_by="signer")))) == 26


def test_triplets_are_joined_by_lines(cloud):
    embeddings, signer, kind = cloud
    ax = plot_embeddings_2d(embeddings, signer, kind, triplets=[(0, 2, 1), (8, 10, 9)])
    points = np.asarray(ax.collections[0].get_offsets())
    lines = [line for line in ax.lines if str(line.get_gid()).startswith("to ")]  # seaborn adds empty ones of its own
    assert len(lines) == 4
    np.testing.assert_allclose(lines[1].get_xydata(), points[[0, 1]])
    assert texts(ax).count("anchor to positive") == texts(ax).count("anchor to negative") == 1


def test_embeddings_3d_say_whose_each_point_is(cloud):
    embeddings, signer, kind = cloud
    figure = plot_embeddings_3d(embeddings, signer, kind)
    assert [trace.name for trace in figure.data] == ["signer 1", "signer 2", "signer 10"]
    assert figure.data[1].text[1] == "signer 2, skilled, row 9" and list(figure.data[1].marker.symbol[:2]) == ["circle", "diamond"]
    drawn = np.concatenate([np.column_stack([trace.x, trace.y, trace.z]) for trace in figure.data])
    np.testing.assert_allclose(np.abs(drawn), np.abs(PCA(3).fit_transform(embeddings)), atol=1e-5)
    assert "%" in figure.layout.scene.xaxis.title.text and figure.layout.title.text
    assert len(json.dumps(json.loads(figure.to_json()))) < 50_000
    by_kind = plot_embeddings_3d(embeddings, np.arange(24), kind)
    assert {trace.name: trace.marker.color for trace in by_kind.data} == {f"kind {k}": KIND_COLOURS[k] for k in ("genuine", "skilled")}


def test_collapsed_embeddings_are_drawn_in_one_point():
    ax = plot_embeddings_2d(np.ones((5, 3)), ["a"] * 5)
    assert "(0 %" in ax.get_xlabel() and "1 signer," in ax.get_title()


@pytest.mark.parametrize("plot", [plot_embeddings_2d, plot_embeddings_3d])
def test_embeddings_refuse(plot, cloud):
    embeddings, signer, kind = cloud
    with pytest.raises(ValueError, match="2-D"):
        plot(embeddings[0], signer)
    with pytest.raises(ValueError, match="1 rows with NaN"):
        plot(np.where(np.arange(24)[:, None] == 3, np.nan, embeddings), signer)
    with pytest.raises(ValueError, match="one entry an embedding"):
        plot(embeddings, signer[1:])
    with pytest.raises(ValueError, match="colour_by must be"):
        plot(embeddings, signer, kind, colour_by="mood")


# ---- images

def test_ink_is_dark_on_white_and_scans_are_as_they_are():
    ink, scan, colour = np.eye(8, dtype=np.float32), np.full((8, 12), 200, np.uint8), np.zeros((8, 8, 3), np.uint8)
    figure = show_images([ink, ink > 0, ink[..., None], scan, colour], ["a", "b", "c", "d", "e"], cols=3, title="five")
    shown = [ax.images[0] for ax in figure.axes[:5]]
    for image in shown[:3]:
        assert image.to_rgba(np.array([[1.0]]))[0, 0, 0] == 0 and image.to_rgba(np.array([[0.0]]))[0, 0, 0] == 1
    assert shown[3].to_rgba(np.array([[200.0]]))[0, 0, 0] == pytest.approx(200 / 255, abs=0.01)
    assert shown[4].get_array().shape == (8, 8, 3)
    assert [ax.get_title() for ax in figure.axes[:5]] == list("abcde") and not figure.axes[5].axison


@pytest.mark.parametrize("images, titles, message", [
    ([], None, "at least one image"), ([np.zeros((2, 2))], ["a", "b"], "got 1 images and 2 titles"),
    ([np.zeros((1, 2, 2, 3))], None, "an image must be"), ([np.zeros((2, 2), int)], None, "got int64"), ([np.zeros((0, 2))], None, "an image must be"),
])
def test_show_images_refuses(images, titles, message):
    with pytest.raises(ValueError, match=message):
        show_images(images, titles)


def test_hardest_trials_are_far_genuine_and_near_impostors(trials):
    _, distance, kind = trials
    rows = hardest_trials(kind, distance, n=3)
    assert list(rows) == ["genuine", "skilled", "random"]
    assert distance[rows["genuine"]].tolist() == sorted(distance[kind == "genuine"])[:-4:-1]
    for name in ("skilled", "random"):
        assert distance[rows[name]].tolist() == sorted(distance[kind == name])[:3]
    assert len(hardest_trials(kind, distance, n=1000)["skilled"]) == 50
    with pytest.raises(ValueError, match="free of NaN"):
        hardest_trials(["genuine"], [np.nan])


def test_pairs_say_what_was_decided_and_whether_it_was_right():
    image = np.eye(6, dtype=np.float32)
    pairs = [(image, image, "genuine", 0.1), (image, image, "genuine", 0.9), (image, image, "skilled", 0.1), (image, image, "random", 0.9)]
    figure = plot_pairs(pairs, threshold=0.5, title="hard")
    words = [" ".join(box.get_suptitle().split()) for box in figure.subfigs]
    assert words == ["genuine, distance 0.1 accepted (right)", "genuine, distance 0.9 rejected (wrong)", "skilled, distance 0.1 accepted (wrong)",
                     "random, distance 0.9 rejected (right)"]
    edges = [to_rgb(box.axes[0].spines["top"].get_edgecolor()) for box in figure.subfigs]
    assert edges == [to_rgb(KIND_COLOURS[pair[2]]) for pair in pairs]
    assert plot_pairs(pairs[:1]).subfigs[0].get_suptitle() == "genuine, distance 0.1"
    with pytest.raises(ValueError, match="at least one pair"):
        plot_pairs([])


def test_before_after_has_a_row_each_and_the_wanted_result_beside_it():
    images = [np.eye(6, dtype=np.float32)] * 2
    figure = before_after(images, images, truth=images, names=["a", "b"], title="cleaned")
    assert [ax.get_title() for ax in figure.axes[:3]] == ["before", "after", "wanted"] and len(figure.axes) == 6
    assert [figure.axes[0].get_ylabel(), figure.axes[3].get_ylabel()] == ["a", "b"]
    assert len(before_after(images, images).axes) == 4
    with pytest.raises(ValueError, match=r"one length, at least 1, got \[2, 1\]"):
        before_after(images, images[:1])
    with pytest.raises(ValueError, match="at least 1"):
        before_after([], [])


def test_boxes_are_page_fractions():
    page = np.full((200, 100, 3), 255, np.uint8)
    ax = plot_boxes(page, [[0.5, 0.1, 0.75, 0.6], [0, 0, 0.1, 0.1]], scores=[0.9, 0.1], labels=["signature", "date"], truth=[[0.5, 0.2, 0.8, 0.6]], threshold=0.22)
    found, truth = ax.patches
    assert (found.get_x(), found.get_y(), found.get_width(), found.get_height()) == pytest.approx((10, 100, 50, 50))
    assert (truth.get_x(), truth.get_y(), truth.get_width(), truth.get_height()) == pytest.approx((20, 100, 40, 60))
    assert truth.get_linestyle() == "--" and [text.get_text() for text in ax.texts] == ["signature 90 %"]
    assert ax.get_title() == "1 found (1 below 22 % hidden), 1 true (dashed)"
    assert plot_boxes(page[..., 0], []).get_title() == "0 found"
    box = [[0.1, 0.1, 0.2, 0.2]]
    assert [plot_boxes(page, box, **words).texts[0].get_text() for words in ({}, {"scores": [0.5]}, {"labels": ["date"]})] == ["", "50 %", "date"]


@pytest.mark.parametrize("boxes, options, message", [
    ([[10, 20, 100, 60]], {}, "page fractions between 0 and 1, got 10 to 100"),
    ([0.1, 0.1, 0.2, 0.2], {}, r"\(N, 4\)"),
    ([[0.5, 0.5, 0.2, 0.6]], {}, "min <= max"),
    ([[0.1, 0.1, np.nan, 0.2]], {}, "page fractions"),
    ([[0.1, 0.1, 0.2, 0.2]], {"scores": [1, 2]}, "scores must have one entry a box"),
    ([[0.1, 0.1, 0.2, 0.2]], {"labels": []}, "labels must have one entry a box"),
    ([], {"truth": [[1, 2, 3, 4]]}, "truth must be page fractions"),
])
def test_boxes_refuse(boxes, options, message):
    with pytest.raises(ValueError, match=message):
        plot_boxes(np.zeros((20, 20, 3), np.uint8), boxes, **options)


# ---- history

def test_history_has_a_panel_for_each_quantity_and_marks_the_best_epoch():
    history = {"loss": [3, 2, 1], "val_loss": [3, 2.5, 2.7], "val_eer": [0.3, np.nan, 0.2], "val_accuracy": [0.5, 0.8, 0.7], "learning_rate": [1e-3, 1e-4, 1e-5]}
    figure = plot_history(SimpleNamespace(history=history), title="run")
    panels = {ax.get_title(): ax for ax in figure.axes if ax.axison}
    assert list(panels) == ["loss", "EER", "accuracy", "learning rate"]
    assert all(explained(ax) and ax.get_xlabel() == "epoch" for ax in panels.values())
    loss, validation, best = panels["loss"].lines
    assert loss.get_xydata().tolist() == [[1, 3], [2, 2], [3, 1]] and best.get_xydata().tolist() == [[2, 2.5]]
    assert panels["EER"].lines[-1].get_xydata().tolist() == [[3, 20]] and panels["EER"].get_ylabel() == "EER (%)"
    assert panels["accuracy"].lines[-1].get_xydata().tolist() == [[2, 80]]
    assert panels["learning rate"].get_yscale() == "log"
    assert plot_history({"loss": [1]}).get_suptitle() == "Training, 1 epoch"
    with pytest.raises(ValueError, match="at least one epoch"):
        plot_history({"loss": []})


# ---- imports

def test_importing_plots_loads_no_plotting_library():
    code = ("import sys, signver_kit.plots; heavy = {'matplotlib', 'seaborn', 'plotly', 'pandas', 'scipy', 'sklearn', 'keras', 'tensorflow'};"
            "assert not heavy & set(sys.modules), heavy & set(sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
