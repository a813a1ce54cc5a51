"""The gallery: enrol, ask, export, erase; killed writers, many processes, other models, and bytes that must be gone."""
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signver_kit import gallery as module
from signver_kit.descriptors import Description
from signver_kit.gallery import (AlreadyEnrolled, FunctionExtractor, Gallery, GalleryError, ModelId, OtherModel, UnknownSigner, VectorCache, build_ivf, check_signer, embeddings_of,
                                 gallery_schema, hog_extractor, local_maps, make_rows, to_png, top_rows)
from signver_kit.images import NoInk
from signver_kit.matcher import Matcher
from signver_kit.synthetic import SyntheticSigners


class Folded:
    """A quick extractor: sums of an image's rows and columns, folded; no ink is looked for."""

    def __init__(self, name="folded", dim=24):
        self.card, self.dim = {"name": name, "sha256": name.ljust(64, "0")}, dim

    def extract(self, images):
        found = []
        for image in images:
            image = module.read_image(image)
            sums = np.concatenate([image.sum(axis=0), image.sum(axis=1)]).astype(np.float64)
            found.append(np.add.reduceat(np.resize(255.0 * image.size - sums, 240), np.arange(0, 240, 240 // self.dim))[:self.dim] % 997 + 1)
        return np.stack(found) if found else np.zeros((0, self.dim))


def noise(seed, shape=(20, 30)):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


@pytest.fixture
def empty(tmp_path):
    return Gallery.create(tmp_path / "gallery", Folded())


@pytest.fixture
def small(empty):
    """Ann has three signatures, Ben two."""
    empty.enrol_all(["Ann", "Ann", "Ann", "Ben", "Ben"], [noise(seed) for seed in range(5)])
    return empty


@pytest.fixture(scope="module")
def hands():
    """Name -> six genuine pictures, and forgeries of the first."""
    people = SyntheticSigners(12, seed=6, genuine=6, forgeries=1).set
    table = people.table.reset_index(drop=True)
    own = {f"signer {name}": [people.read(int(row)) for row in table.index[(table.signer == name) & (table.kind == "genuine")]] for name in people.signers}
    forged = people.read(int(table.index[(table.signer == people.signers[0]) & (table.kind == "skilled")][0]))
    return own, forged


@pytest.fixture(scope="module")
def filled(hands, tmp_path_factory):
    gallery = Gallery.create(tmp_path_factory.mktemp("filled") / "gallery", hog_extractor())
    for name, pictures in hands[0].items():
        gallery.enrol_all([name] * 4, pictures[:4])
    return gallery


def on_disk(folder, needle):
    return sum(needle in path.read_bytes() for path in folder.rglob("*") if path.is_file())


# ---- whose embeddings ----

def test_a_model_is_known_by_its_hash():
    assert ModelId.of(Folded(dim=12)) == ModelId("folded", "folded".ljust(64, "0"), 12)
    assert ModelId.of_schema(gallery_schema(ModelId("a", "b", 3))) == ModelId("a", "b", 3)
    with pytest.raises(GalleryError, match="no sha256"):
        ModelId.of(object())
    with pytest.raises(GalleryError, match="does not"):
        ModelId.of_schema(pa.schema([("id", pa.string())]))
    assert FunctionExtractor(len, "x").card != FunctionExtractor(len, "x", version="2").card


def test_a_function_is_an_extractor(hands):
    hog, pictures = hog_extractor(), hands[0]["signer 0"][:2]
    described = hog.describe(pictures)
    assert described.extractor == hog.card["sha256"] and described.embeddings.shape == (2, 1980) and np.allclose(np.linalg.norm(described.embeddings, axis=1), 1, atol=1e-5)
    with pytest.raises(NoInk, match="image 1"):
        hog.extract([pictures[0], np.full((40, 60), 255, np.uint8)])


def test_another_model_is_refused_with_the_remedy(small, tmp_path):
    for other in (Folded("other"), Folded(dim=12)):
        with pytest.raises(OtherModel, match="reembed"):
            Gallery.open(small.folder, other)
    with pytest.raises(OtherModel, match="24 numbers"):
        small.nearest(np.ones(7))
    described = Description(local_maps([np.diag(np.full(60, 255, np.uint8))[::-1]]), np.eye(24, dtype=np.float32)[:1], "ff" * 32)
    with pytest.raises(OtherModel, match="one row described by"):
        small.nearest(described)
    with pytest.raises(GalleryError, match="no extractor"):
        Gallery.open(small.folder).enrol("Ann", noise(99))


def test_reembedding_replaces_all_at_once(small, tmp_path):
    before, old = small.list(), Gallery.open(small.folder, Folded())
    bytes_before = embeddings_of(small._fetch(["embedding"])["embedding"])[0].tobytes()
    assert on_disk(small.folder, bytes_before)
    assert Gallery.open(small.folder).reembed(Folded("new", 12)) == 5
    new = Gallery.open(small.folder, Folded("new", 12))
    assert new.list().id.tolist() == before.id.tolist() and set(new.list().model) == {"new"} and not on_disk(small.folder, bytes_before)
    stored = new._fetch(["image", "embedding"])
    assert np.allclose(embeddings_of(stored["embedding"]), module.unit(Folded("new", 12).extract([one.as_py() for one in stored["image"]])), atol=1e-6)
    with pytest.raises(OtherModel):  # it was opened before
        old.enrol("Cleo", noise(77))
    with pytest.raises(OtherModel):
        old.nearest(noise(1))


def test_reembedding_that_fails_changes_nothing(small):
    class Failing(Folded):
        def extract(self, images):
            if any(module.read_image(image).shape == (20, 30) for image in images):
                raise RuntimeError("the network has gone")
            return super().extract(images)

    before = small._fetch(["id", "embedding"]).to_pylist()
    with pytest.raises(RuntimeError, match="gone"):
        small.reembed(Failing("failing"))
    assert small._fetch(["id", "embedding"]).to_pylist() == before and small.model.name == "folded" and small.extractor.card["name"] == "folded"


def test_an_empty_gallery_can_be_reembedded(empty):
    assert empty.reembed(Folded("new", 12)) == 0
    empty.enrol("Ann", noise(1))
    assert empty.nearest(noise(1), 1).distance[0] < 1e-6


# ---- on file ----

def test_what_goes_in_comes_out(empty):
    picture = noise(3, (33, 57))
    id = empty.enrol("Ann", picture, document="a.pdf", page=2, box=[0.1, 0.2, 0.3, 0.4])
    row = empty.list("Ann").iloc[0]
    assert (empty.image(id) == picture).all()
    assert (row.id, row.signer, row.document, row.page, list(row.box), row.model) == (id, "Ann", "a.pdf", 2, [0.1, 0.2, 0.3, 0.4], "folded") and row.enrolled.endswith("+00:00")
    assert len(empty) == 1 and "Ann" in empty and "Ben" not in empty and empty.signers() == {"Ann": 1}
    assert (empty.folder.stat().st_mode & 0o077) == 0 or os.name == "nt"
    with pytest.raises(GalleryError, match="id must be one"):
        empty.image("no such")


def test_files_and_bytes_are_taken(empty, tmp_path):
    (tmp_path / "one.png").write_bytes(to_png(noise(1)))
    empty.enrol("Ann", tmp_path / "one.png")
    empty.enrol("Ben", to_png(noise(1)))  # the same picture of another signer: two people may use one stamp, the gallery does not judge
    with pytest.raises(FileNotFoundError):
        empty.enrol("Ann", tmp_path / "two.png")
    assert len(empty) == 2


def test_all_or_none_is_enrolled(small):
    for signers, pictures, error in ((["Cleo", "Ann"], [noise(50), noise(0)], AlreadyEnrolled), (["Cleo", "Cleo"], [noise(50), noise(50)], AlreadyEnrolled),
                                     (["Cleo", " "], [noise(50), noise(51)], GalleryError), (["Cleo"], [noise(50), noise(51)], GalleryError), ([], [], GalleryError)):
        with pytest.raises(error):
            small.enrol_all(signers, pictures)
    assert len(small) == 5
    with pytest.raises(AlreadyEnrolled, match="delete"):
        small.enrol("Ann", noise(0))


@pytest.mark.parametrize("name", ["", " Ann", "Ann\n", "A\x00", None, 7, "x" * 201])
def test_names_that_are_refused(name):
    with pytest.raises(GalleryError, match="printable"):
        check_signer(name)


@pytest.mark.parametrize("place", [{"page": -1}, {"page": 1.5}, {"page": True}, {"box": [0, 0, 1]}, {"box": [0.5, 0, 0.4, 1]}, {"box": [0, 0, 2, 1]}, {"box": [0, 0, np.nan, 1]}, {"document": ""}])
def test_places_that_are_refused(empty, place):
    with pytest.raises(GalleryError):
        empty.enrol("Ann", noise(1), **place)
    assert len(empty) == 0


@settings(max_examples=8, deadline=None)
@given(name=st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")) | st.sampled_from("'\"\\%_; -"), min_size=1, max_size=12).filter(lambda text: text == text.strip()))
def test_any_name_is_taken_literally(tmp_path_factory, name):
    with Gallery.create(tmp_path_factory.mktemp("names") / "gallery", Folded()) as gallery:
        gallery.enrol_all([name, "' OR 1=1 --", "nobody"], [noise(seed) for seed in range(3)])
        assert gallery.list(name).signer.tolist() == [name] and name in gallery
        assert gallery.erase(name) == 1 and name not in gallery and len(gallery) == 2


def test_an_unknown_signer_is_told_who_is_near(small):
    for call in (small.list, small.references, small.erase, lambda name: small.verify(name, noise(0)), small.signer_threshold):
        with pytest.raises((UnknownSigner, NoInk, ValueError)) as caught:
            call("Anne")
        assert "'Ann'" in str(caught.value) or isinstance(caught.value, NoInk)
    with pytest.raises(UnknownSigner, match="enrol"):
        small.list("Zacharias")


def test_opening_and_creating(small, tmp_path):
    with pytest.raises(FileExistsError):
        Gallery.create(small.folder, Folded())
    with pytest.raises(FileNotFoundError, match="create"):
        Gallery.open(tmp_path / "elsewhere", Folded())
    assert len(Gallery.open(small.folder)) == 5  # no extractor: it can be looked at
    assert "5 signatures of 2 signers" in repr(small)


# ---- search ----

@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.floats(-1, 1), min_size=1, max_size=40), k=st.integers(1, 50))
def test_top_rows_are_the_largest(values, k):
    values = np.array(values)
    assert values[top_rows(values, k)].tolist() == sorted(values.tolist(), reverse=True)[:k]


def same_as_fresh(gallery):
    fresh = VectorCache().refresh(gallery._table)
    cache = gallery._vectors()
    order, wanted = np.argsort(cache.ids.to_pylist()), np.argsort(fresh.ids.to_pylist())
    assert (cache.vectors[order] == fresh.vectors[wanted]).all() and cache.ids.take(pa.array(order)).equals(fresh.ids.take(pa.array(wanted)))
    assert cache.names.take(pa.array(cache.code[order])).equals(fresh.names.take(pa.array(fresh.code[wanted]))) and cache.counts.sum() == len(cache.ids)


def test_the_copy_in_memory_follows_the_table(small):
    same_as_fresh(small)
    other = Gallery.open(small.folder, Folded())
    other.enrol("Cleo", noise(60))
    same_as_fresh(small)
    other.delete(other.list("Ann").id[1])
    other.enrol("Dan", noise(61))
    same_as_fresh(small)
    other.erase("Ben")
    same_as_fresh(small)
    assert small.nearest(noise(60), 1).signer[0] == "Cleo"
    other.reembed(Folded("new", 12))
    same_as_fresh(Gallery.open(small.folder, Folded("new", 12)))


def test_nearest_is_the_matrix_product(small):
    stored = small._fetch(["id", "embedding"])
    query = module.unit(Folded().extract([noise(1)])[0])
    distances = 1 - embeddings_of(stored["embedding"]) @ query
    found = small.nearest(noise(1), 99)
    assert found.distance.tolist() == pytest.approx(np.sort(distances).tolist(), abs=1e-5) and found.id[0] == stored["id"][int(np.argmin(distances))].as_py()
    assert small.nearest(query, 2).id.tolist() == found.id[:2].tolist()
    with pytest.raises(GalleryError, match="build_index"):
        small.nearest(noise(1), exact=False)
    with pytest.raises(GalleryError, match="from 1000"):
        pytest.importorskip("faiss") and small.build_index()


def test_an_index_finds_nearly_all_and_keeps_up(empty, tmp_path):
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    vectors = module.unit(np.repeat(rng.normal(size=(300, 24)), 5, axis=0) + 0.4 * rng.normal(size=(1500, 24))).astype(np.float32)
    rows = make_rows(empty.model, [f"signer {row // 5}" for row in range(1500)], [noise(row, (4, 4)) for row in range(1500)], vectors)
    pq.write_table(rows, tmp_path / "rows.parquet")
    assert empty.load_export(tmp_path / "rows.parquet") == 1500
    reached = empty.build_index(recall=0.95)
    assert reached >= 0.95
    queries = vectors[rng.choice(1500, 50, replace=False)]
    found = [len(set(empty.nearest(query, 10).id) & set(empty.nearest(query, 10, exact=True).id)) / 10 for query in queries]
    assert np.mean(found) >= 0.9
    id = empty.enrol("new", noise(5000))
    assert empty.nearest(noise(5000), 1, exact=False).id[0] == id  # added to the index
    empty.delete(id)
    with pytest.raises(GalleryError, match="again after"):
        empty.nearest(noise(5000), 1, exact=False)
    assert id not in set(empty.nearest(noise(5000), 5).id)


def test_an_index_without_faiss_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ModuleNotFoundError, match="pip install faiss-cpu"):
        build_ivf(np.eye(4, dtype=np.float32))


# ---- verification and identification ----

def test_a_claim_is_what_the_matcher_says(filled, hands):
    own, forged = hands
    hog, matcher = hog_extractor(), Matcher(kind="local").load()
    found = filled.verify("signer 0", own["signer 0"][5])
    ids, references = filled.references("signer 0")
    wanted = matcher.explain(hog.describe([own["signer 0"][5]]), references)
    assert found.verdict == wanted and found.accepted == bool(found) and found.distance == wanted.distance and found.references == tuple(ids) and found.on_file == 4
    assert np.allclose(references.maps.descriptors, hog.describe([filled.image(id) for id in ids]).maps.descriptors) and found.threshold_kind == "global"
    assert filled.verify("signer 0", hog.describe([own["signer 0"][5]])).distance == pytest.approx(wanted.distance)
    assert len(filled.verify("signer 0", forged, most=2).references) == 2
    assert filled.verify("signer 0", forged, threshold=1e9).accepted and not filled.verify("signer 0", own["signer 5"][5])
    for wrong in ("lenient", -1.0):
        with pytest.raises(ValueError, match="threshold"):
            filled.verify("signer 0", forged, threshold=wrong)
    with pytest.raises(GalleryError, match="most"):
        filled.references("signer 0", 0)


def test_results_render_and_serialise(filled, hands, tmp_path):
    own, _ = hands
    shown = Gallery.create(tmp_path / "g", hog_extractor())
    shown.enrol_all(["<b>Ann</b>"] * 2 + ["Ben"] * 2, own["signer 0"][:2] + own["signer 1"][:2])
    for result in (shown.verify("<b>Ann</b>", own["signer 0"][4], cohort=True), shown.identify(own["signer 0"][4], threshold=1e9), shown.identify(own["signer 0"][4], score="normalised", threshold=2.0)):
        assert "&lt;b&gt;" in result._repr_html_() and "<b>Ann" not in result._repr_html_()
        again = json.loads(json.dumps(result.as_dict(), allow_nan=False))
        assert again["model"]["name"] == "hog" and again["signer"] == "<b>Ann</b>"


def test_fused_evidence_only_for_the_model_it_was_fitted_for(filled, hands):
    fitted = Matcher().load()
    fitted.card = {**fitted.card, "extractor_sha256": filled.model.sha256}
    own = Gallery.open(filled.folder, hog_extractor(), fitted)
    assert own.verify("signer 0", hands[0]["signer 0"][5]).verdict.kind == "fused" and filled.verify("signer 0", hands[0]["signer 0"][5]).verdict.kind == "local"


def test_a_signers_threshold_is_only_ever_stricter(filled, hands, tmp_path):
    found = filled.signer_threshold("signer 0", fmr=0.3)
    assert 0 <= found.value <= found.general and found.strangers <= 0.3 and found.cohort == 11
    assert filled.verify("signer 0", hands[0]["signer 0"][5], threshold=found.value).threshold == found.value
    crowd = Gallery.create(tmp_path / "crowd", hog_extractor())  # everybody signs alike: strangers are the signer's own later signatures
    crowd.enrol_all(["Ann"] * 3 + ["x", "y", "z"], hands[0]["signer 3"])
    crowd.enrol_all([f"stranger {number}" for number in range(7)], [own[0] for name, own in list(hands[0].items())[4:11]])
    lowered = crowd.signer_threshold("Ann", fmr=0.3)
    assert lowered.strangers_general >= lowered.strangers and lowered.strangers <= 0.3
    with pytest.raises(GalleryError, match="3 references"):
        crowd.signer_threshold("x")
    with pytest.raises(ValueError, match="rule of 3"):
        filled.signer_threshold("signer 0")


def test_normalised_by_the_cohort(filled, hands):
    near, far = (filled.verify("signer 0", picture, cohort=True).normalised for picture in (hands[0]["signer 0"][5], hands[0]["signer 7"][5]))
    assert 0 < near < far
    names, cohort = filled.cohort("signer 0", 5)
    assert len(names) == len(cohort) == 5 and "signer 0" not in names and names == filled.cohort("signer 0", 5)[0]


def test_a_cohort_needs_others(tmp_path, hands):
    alone = Gallery.create(tmp_path / "alone", hog_extractor())
    with pytest.raises(GalleryError, match="empty gallery"):
        alone.identify(hands[0]["signer 0"][0])
    alone.enrol("Ann", hands[0]["signer 0"][0])
    with pytest.raises(GalleryError, match="nobody but"):
        alone.cohort("Ann")
    with pytest.raises(GalleryError, match="two signers"):
        alone.identify(hands[0]["signer 0"][1], score="normalised", threshold=1.0)
    with pytest.raises(GalleryError, match="strangers are played"):
        alone.open_set_threshold()


def test_everybody_is_found_and_a_stranger_is_nobody(filled, hands, tmp_path):
    own, _ = hands
    names = list(own)
    found = [filled.identify(own[name][5], k=3) for name in names[::3]]
    assert [one.candidates[0][0] for one in found] == names[::3] and all(len(one.candidates) == 3 for one in found)
    assert all(one.candidates == tuple(sorted(one.candidates, key=lambda pair: pair[1])) for one in found)
    assert [one.signer for one in found] == [name if one.accepted else None for name, one in zip(names[::3], found)]
    others = Gallery.create(tmp_path / "others", hog_extractor())
    others.load_export(filled.export(tmp_path / "all.parquet"))
    others.erase("signer 0")
    nobody = others.identify(own["signer 0"][5])
    assert not nobody and nobody.signer is None and nobody.signers == 11 and nobody.signatures == 44
    assert others.identify(own["signer 0"][5], threshold=1e9).signer in names[1:]
    assert len(filled.identify(own["signer 0"][5], k=9, shortlist=2).candidates) == 2
    for wrong in ({"k": 0}, {"score": "normalised"}, {"score": "best"}, {"shortlist": 0}):
        with pytest.raises(GalleryError, match="score must be"):
            filled.identify(own["signer 0"][5], **wrong)


def test_a_threshold_for_the_open_set(filled):
    found = filled.open_set_threshold(0.3, shortlist=3)
    assert found["fpir"] <= 0.3 and 0 <= found["fnir"] <= 1 and found["strangers"] == found["signers"] == 12
    with pytest.raises(ValueError, match="rule of 3"):
        filled.open_set_threshold(0.1, trials=12, shortlist=1)


# ---- out and in ----

def test_through_a_file_and_back(small, tmp_path):
    path = small.export(tmp_path / "all.parquet")
    with pytest.raises(FileExistsError, match="overwrite"):
        small.export(path)
    small.export(path, overwrite=True)
    copy = Gallery.create(tmp_path / "copy", Folded())
    assert copy.load_export(path) == 5 and copy.list().equals(small.list()) and copy._fetch(["image", "embedding"]).to_pylist() == small._fetch(["image", "embedding"]).to_pylist()
    with pytest.raises(AlreadyEnrolled):
        copy.load_export(path)
    copy.delete(copy.list("Ben").id[0])
    assert copy.load_export(path, skip_known=True) == 1 and len(copy) == 5
    assert list(tmp_path.glob(".*")) == [] and (os.name == "nt" or path.stat().st_mode & 0o077 == 0)


def spoilt(rows, how):
    def column(name, value):
        values = rows[name].to_pylist()
        values[3] = value(values[3])
        return rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), pa.array(values, rows.schema.field(name).type))

    return {"picture": lambda: column("image", lambda png: png[:40]), "hash": lambda: column("image_sha256", lambda text: "0" * 64), "other": lambda: column("image", lambda png: to_png(noise(9))),
            "length": lambda: column("embedding", lambda vector: [2 * one for one in vector]), "nan": lambda: column("embedding", lambda vector: [float("nan")] * len(vector)),
            "signer": lambda: column("signer", lambda text: ""), "box": lambda: column("box", lambda box: [0.0, 0.0, 7.0, 1.0]), "model": lambda: column("model_sha256", lambda text: "f" * 64),
            "ids": lambda: column("id", lambda text: rows["id"][0].as_py()), "missing": lambda: rows.drop_columns(["box"]), "empty": lambda: column("image", lambda png: None),
            "metadata": lambda: rows.replace_schema_metadata(None), "twice": lambda: pa.concat_tables([rows, rows])}[how]()


@pytest.mark.parametrize("how", ["picture", "hash", "other", "length", "nan", "signer", "box", "model", "ids", "missing", "empty", "metadata", "twice"])
def test_a_bad_file_changes_nothing(small, tmp_path, how):
    rows = make_rows(small.model, [f"new {row}" for row in range(6)], [noise(100 + row) for row in range(6)], Folded().extract([noise(100 + row) for row in range(6)]))
    pq.write_table(spoilt(rows, how), tmp_path / "bad.parquet")
    with pytest.raises(GalleryError):
        small.load_export(tmp_path / "bad.parquet")
    assert len(small) == 5 and set(small.signers()) == {"Ann", "Ben"}
    pq.write_table(rows, tmp_path / "good.parquet")
    assert small.load_export(tmp_path / "good.parquet") == 6


def test_files_that_are_no_exports(small, tmp_path):
    (tmp_path / "text.parquet").write_text("not Parquet at all")
    with pytest.raises(GalleryError, match="which is not"):
        small.load_export(tmp_path / "text.parquet")
    with pytest.raises(FileNotFoundError):
        small.load_export(tmp_path / "none.parquet")
    with pytest.raises(OtherModel, match="reembed"):
        Gallery.create(tmp_path / "other", Folded("other")).load_export(small.export(tmp_path / "all.parquet"))


# ---- gone ----

def needles(gallery, signer):
    rows = gallery._fetch(["signer", "image", "embedding"])
    own = rows.filter(pc.equal(rows["signer"], signer))
    return [signer.encode(), own["image"][0].as_py()[-120:], embeddings_of(own["embedding"])[0].tobytes()]


@pytest.mark.parametrize("compacted", [False, True])
def test_erased_is_gone_from_every_file(small, compacted):
    small.enrol_all(["Wilhelmina Erasmus"] * 2, [noise(200, (60, 80)), noise(201, (60, 80))])
    small.enrol_all(["crowd"] * 30, [noise(300 + row) for row in range(30)])
    if compacted:
        small.purge()
    wanted = needles(small, "Wilhelmina Erasmus")
    assert all(on_disk(small.folder, needle) for needle in wanted), "the probes must find what is there"
    small.delete(small.list("Wilhelmina Erasmus").id[0])
    assert any(on_disk(small.folder, needle) for needle in wanted)
    assert small.erase("Wilhelmina Erasmus") == 1
    assert [on_disk(small.folder, needle) for needle in wanted] == [0, 0, 0]
    assert small.signers() == {"Ann": 3, "Ben": 2, "crowd": 30} and len(small.nearest(noise(0), 99)) == 35
    with pytest.raises(UnknownSigner):
        small.erase("Wilhelmina Erasmus")


def test_deleted_is_gone_after_a_purge(small):
    small.enrol("Wilhelmina Erasmus", noise(200, (60, 80)))
    wanted = needles(small, "Wilhelmina Erasmus")
    small.delete(small.list("Wilhelmina Erasmus").id[0])
    assert "Wilhelmina Erasmus" not in small and all(on_disk(small.folder, needle) for needle in wanted[1:])
    small.purge()
    assert not any(on_disk(small.folder, needle) for needle in wanted)
    with pytest.raises(GalleryError, match="deleted already"):
        small.delete("0" * 32)


@pytest.mark.parametrize("finished_by", ["opening", "writing"])
def test_an_erasure_that_was_cut_short_is_finished(small, monkeypatch, finished_by):
    small.enrol("Wilhelmina Erasmus", noise(200, (60, 80)))
    wanted = needles(small, "Wilhelmina Erasmus")

    def die(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Gallery, "_prune", die)
        with pytest.raises(KeyboardInterrupt):
            small.erase("Wilhelmina Erasmus")
    assert any(on_disk(small.folder, needle) for needle in wanted)
    if finished_by == "opening":
        Gallery.open(small.folder)
    else:
        small.enrol("Cleo", noise(70))
    assert not any(on_disk(small.folder, needle) for needle in wanted) and "Wilhelmina Erasmus" not in small and small.signers()["Ann"] == 3


def test_everybody_can_be_erased(small):
    for name in list(small.signers()):
        small.erase(name)
    assert len(small) == 0 and small.signers() == {} and len(small.nearest(noise(0))) == 0
    small.enrol("Ann", noise(0))
    assert small.nearest(noise(0)).signer.tolist() == ["Ann"]


def test_many_small_files_are_put_together(empty):
    for seed in range(70):
        empty.enrol("Ann", noise(seed, (6, 6)))
    assert empty._table.stats()["fragment_stats"]["num_fragments"] < 64 and len(empty) == 70 and len(set(empty.list().id)) == 70


# ---- many processes ----

FORKS = """
import json, os, random, select, signal, sys, time
sys.path[:0] = json.loads(sys.argv[2])
import numpy as np
from signver_kit.gallery import Gallery
from test_gallery import Folded

folder = sys.argv[1]

def picture():
    return np.frombuffer(os.urandom(600), np.uint8).reshape(20, 30)

def forked(work):
    "A child at work: its id, and what it says."
    end, own = os.pipe()
    child = os.fork()
    if child:
        os.close(own)
        return child, end
    try:
        os.close(end)
        work(lambda text: os.write(own, (text + "\\n").encode()))
        os._exit(0)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\\n".encode())
    os._exit(1)

def rest_of(end):
    text = b""
    while part := os.read(end, 1 << 16):
        text += part
    os.close(end)
    return text.decode()
"""

KILLS = FORKS + """
said, kills = {}, 0
while kills < 50:
    name = f"signer {len(said)}"
    def work(say):
        gallery = Gallery.open(folder, Folded())
        while True:
            say(gallery.enrol(name, picture()))
    child, end = forked(work)
    heard = bool(select.select([end], [], [], 30)[0])
    time.sleep(random.uniform(0, 0.04))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    said[name] = [line for line in rest_of(end).splitlines() if len(line) == 32]
    kills += heard and bool(said[name])
    assert len(said) < 60, "too many children said nothing"
print(json.dumps(said))
"""

TOGETHER = FORKS + """
def write(say):
    gallery = Gallery.open(folder, Folded())
    for _ in range(6):
        say(gallery.enrol("Ann", picture()))

def erase(say):
    gallery = Gallery.open(folder, Folded())
    for _ in range(3):
        gallery.enrol_all(["passing"] * 3, [picture() for _ in range(3)])
        gallery.delete(gallery.list("passing").id[0])
        gallery.erase("passing")

def read(say):
    gallery, seen, end = Gallery.open(folder, Folded()), 0, time.monotonic() + 120
    while seen < 18 and time.monotonic() < end:
        now = gallery.signers().get("Ann", 0)
        assert now >= seen, "signatures were lost"
        gallery.nearest(picture(), 3)
        on_file = gallery.list()
        assert all(gallery.image(id).shape == (20, 30) for id in on_file.id[on_file.signer == "Ann"][:2])
        seen = now
    assert seen == 18

at_work = [forked(work) for work in (write, write, write, erase, read, read)]
said = [rest_of(end).split() for _, end in at_work]
print(json.dumps([sum(said, []), [os.waitpid(child, 0)[1] for child, _ in at_work]]))
"""


def in_forks(script, folder):
    """What a script says that lets many children work on a gallery; they are forked, since LanceDB takes long to import."""
    here = os.path.dirname(__file__)
    paths = json.dumps([here, os.path.dirname(here)])
    with subprocess.Popen([sys.executable, "-W", "ignore", "-c", script, str(folder), paths], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True) as done:
        try:
            said, errors = done.communicate(timeout=240)
        except subprocess.TimeoutExpired:
            os.killpg(done.pid, signal.SIGKILL)  # the children too
            raise
    assert done.returncode == 0, errors[-3000:]
    return json.loads(said), errors


@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
def test_fifty_kills_lose_at_most_what_was_being_written(empty):
    said, _ = in_forks(KILLS, empty.folder)
    on_file = Gallery.open(empty.folder, Folded()).list()
    assert sum(map(bool, said.values())) >= 50
    for name, ids in said.items():
        there = set(on_file.id[on_file.signer == name])
        assert set(ids) <= there, f"{name}: {len(set(ids) - there)} signatures were lost that enrol had returned"
        assert len(there - set(ids)) <= 1
    rows = empty._fetch(["image", "image_sha256"])
    assert [module.pixel_hash(module.read_image(png.as_py())) for png in rows["image"]] == rows["image_sha256"].to_pylist()
    same_as_fresh(empty)
    empty.purge()
    assert len(empty) == len(on_file)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
def test_three_write_one_erases_two_read(empty):
    empty.enrol("Ben", noise(1))
    (said, codes), errors = in_forks(TOGETHER, empty.folder)
    assert codes == [0] * 6, errors[-3000:]
    assert len(said) == 18 and set(empty.list("Ann").id) == set(said) and empty.signers() == {"Ann": 18, "Ben": 1}
