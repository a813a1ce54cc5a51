"""Building, training, saving, loading and using the extractor."""
from dataclasses import asdict, replace

import keras
import numpy as np
import pytest

from signver_kit.extractor import ExtractorConfig, MetricExtractor, build_extractor, train_extractor
from signver_kit.losses import make_loss
from signver_kit.images import NoInk, UnreadableImage
from signver_kit.synthetic import SyntheticSigners
from signver_kit.training import TrainConfig, WeightsMismatch

from backends import numpy

SMALL = ExtractorConfig(width=4, input_size=(64, 96), grid_channels=8, embedding_dim=16)


@pytest.fixture(scope="module")
def signers():
    return SyntheticSigners(8, seed=1, genuine=5, forgeries=3).set


@pytest.mark.parametrize("change", [{}, {"head": "average"}, {"extra_channels": (8, 8)}, {"dropout": 0.3}, {"backbone": "resnet34"}, {"backbone": "resnet50"},
                                    {"backbone": "signet", "input_size": (80, 112)}])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_embeddings_have_length_one(change, policy):
    config = replace(SMALL, **change)
    model = build_extractor(config, policy)
    out = numpy(model(np.random.default_rng(0).random((2, *config.input_size, 1), dtype=np.float32)))
    assert out.shape == (2, 16) and out.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(out, axis=1), 1, atol=1e-3)


def test_grid_head_sees_places_and_average_head_does_not():
    """The last feature map with its places in another order: all the same to an average, not to a grid."""
    for head, same in (("average", True), ("grid", False)):
        model = build_extractor(replace(SMALL, head=head))
        from_map = keras.Model(model.get_layer("layer4_1").output, model.output)
        places = np.random.default_rng(0).random((1, *from_map.input_shape[1:]), dtype=np.float32)
        here, moved = (numpy(from_map(x)) for x in (places, places[:, ::-1, ::-1].copy()))
        assert bool(np.allclose(here, moved, atol=1e-5)) == same, head


def test_unknown_names():
    with pytest.raises(ValueError, match="head must be"):
        build_extractor(replace(SMALL, head="pool"))
    with pytest.raises(ValueError, match="resnet18"):
        build_extractor(replace(SMALL, backbone="resnet17"))
    with pytest.raises(ValueError, match="loss must be one of"):
        make_loss("hinge")


def test_save_load_extract(tmp_path, signers):
    model = build_extractor(SMALL)
    MetricExtractor(model, SMALL).save(tmp_path / "m", {"trained_on": ["synthetic"]})
    loaded = MetricExtractor().load(tmp_path / "m")
    assert loaded.config == SMALL and loaded.card["trained_on"] == ["synthetic"]
    crops = [signers.read(i) for i in range(3)]
    a, b = MetricExtractor(model, SMALL).extract(crops), loaded.extract(crops)
    assert a.shape == (3, 16) and np.array_equal(a, b)
    np.testing.assert_allclose(a[1], loaded.extract(crops[1:2])[0], atol=1e-5)          # a batch changes nothing
    np.testing.assert_allclose(a[0], loaded.extract([np.repeat(crops[0][..., None], 3, 2)])[0], atol=0.02)  # RGB or grey
    padded = np.pad(crops[0], ((30, 5), (60, 40)), constant_values=255)
    assert float(a[0] @ loaded.extract([padded])[0]) > 0.98                               # where it lay on the paper is no matter


def test_a_description_names_the_extractor(tmp_path, signers):
    crops = [signers.read(i) for i in range(2)]
    names = []
    for folder in ("a", "b"):
        unsaved = MetricExtractor(build_extractor(SMALL), SMALL)
        assert unsaved.describe(crops).extractor is None
        unsaved.save(tmp_path / folder)
        loaded = MetricExtractor().load(tmp_path / folder)
        described = loaded.describe(crops)
        assert described.extractor == loaded.card["sha256"] and described.embeddings.shape == (2, 16)
        names.append(described.extractor)
    assert names[0] != names[1], "other weights, another name"
    bare = MetricExtractor().describe(crops)
    assert bare.extractor is None and bare.embeddings is None and len(bare) == 2


def test_load_refuses_changed_weights(tmp_path):
    MetricExtractor(build_extractor(SMALL), SMALL).save(tmp_path)
    with open(tmp_path / "model.weights.h5", "ab") as file:
        file.write(b"\0")
    with pytest.raises(WeightsMismatch):
        MetricExtractor().load(tmp_path)
    with pytest.raises(FileNotFoundError):
        MetricExtractor().load(tmp_path / "nowhere")


def test_extract_names_the_bad_image():
    extractor = MetricExtractor(build_extractor(SMALL), SMALL)
    good = np.full((40, 80), 255, np.uint8)
    good[15:25, 10:70] = 0
    with pytest.raises(NoInk, match="image 1"):
        extractor.extract([good, np.full((40, 80), 255, np.uint8)])
    with pytest.raises(UnreadableImage, match="image 1"):
        extractor.extract([good, b"not an image"])
    with pytest.raises(RuntimeError, match="load"):
        MetricExtractor().extract([good])


def test_training_refuses_shared_signers(signers):
    names = list(signers.signers)
    with pytest.raises(ValueError, match="split by signer"):
        train_extractor(signers, names[:5], names[4:], SMALL, TrainConfig(epochs=1))


def test_training_improves_on_its_own_signers(signers, tmp_path):
    from signver_kit.training import embed, labels_of, pair_eers
    names = list(signers.signers)
    config = TrainConfig(epochs=3, steps_per_epoch=20, signers_per_batch=6, learning_rate=3e-3, seed=1)  # not every seed: two signers choose the epoch that is kept
    part = signers.subset(names[:6])
    ink, labels = part.ink(size=SMALL.input_size), labels_of(part.table)[0]
    model, history = train_extractor(signers, names[:6], names[6:], SMALL, config, folder=tmp_path, policy="float32", progress=False)
    assert {"loss", "skilled_eer", "random_eer"} <= set(history[0]) and history[-1]["loss"] < history[0]["loss"]
    assert pair_eers(embed(model, ink), labels)["random_eer"] < pair_eers(embed(build_extractor(SMALL), ink), labels)["random_eer"] - 0.05
    again, same = train_extractor(signers, names[:6], names[6:], SMALL, config, folder=tmp_path, policy="float32", progress=False)  # finished: nothing to do
    assert same == history and all(np.array_equal(a, b) for a, b in zip(model.get_weights(), again.get_weights()))
    assert asdict(SMALL)["input"] == "binarised"


def test_a_recipe_makes_a_model_folder(tmp_path):
    from signver_kit.extractor import RECIPES, train_recipe

    first = train_recipe("tiny", tmp_path / "a", progress=False)
    assert first.card["trained_on"] == ["synthetic"] and first.card["recipe"]["signers"] == RECIPES["tiny"].signers and "Apache-2.0" in first.card["terms"]
    assert (tmp_path / "a" / "model.weights.h5").stat().st_size < 1e6
    again = train_recipe("tiny", tmp_path / "a", progress=False)  # nothing left to do: the finished run is found
    assert all(np.array_equal(one, other) for one, other in zip(first.model.get_weights(), again.model.get_weights()))
    with pytest.raises(ValueError, match="a recipe is one of default, tiny, got 'huge'"):
        train_recipe("huge", tmp_path / "b")


def test_a_name_written_once_is_left_out_of_training(signers):
    from signver_kit.datasets import SignatureSet
    from signver_kit.extractor import _training_arrays

    table = signers.table[signers.table.kind == "genuine"].reset_index(drop=True)
    text = table.groupby("signer").cumcount() // 2
    table = table.assign(text=text, identity=table.signer.astype(str) + "/" + text.astype(str)).iloc[1:]
    ink, labels, groups = _training_arrays(SignatureSet("named", table, signers.reader), SMALL)
    pairs = table.groupby("identity").path.transform("size") == 2
    assert len(ink) == len(labels) == len(groups) == pairs.sum() < len(table) and (np.bincount(labels) == 2).all()
    assert np.array_equal(groups, table.text[pairs])
