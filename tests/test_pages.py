"""Pages with boxes: every layout into one form, nothing broken dropped unseen, whole shards or a clear word, round trips."""
import json
import os
import struct

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from signver_kit import pages
from signver_kit.cli import app
from signver_kit.datasets import DatasetLayoutError
from signver_kit.documents import SyntheticPages
from signver_kit.images import UnreadableImage, read_image
from signver_kit.pages import (BOX, CLASSES, DamagedRecord, PageSet, check_pages, class_name, crc32c, example_bytes, open_pages, page_format, parse_example,
                               read_coco, read_signverod, read_ssbi, read_tfrecords, read_voc, read_yolo, write_coco, write_tfrecords)

SOUND = st.tuples(st.floats(0, 0.9), st.floats(0, 0.9), st.floats(0.01, 1), st.floats(0.01, 1)).map(
    lambda box: (box[0], box[1], min(1.0, box[0] + box[2]), min(1.0, box[1] + box[3])))
PAGES = st.lists(st.lists(st.tuples(SOUND, st.sampled_from(CLASSES)), max_size=4), min_size=1, max_size=4)


class Drawn:
    """The least that a writer takes: a length, .read and .truth."""

    def __init__(self, content, size=(40, 30)):
        self.content, self.size = content, size

    def __len__(self):
        return len(self.content)

    def read(self, i):
        return np.random.default_rng(i).integers(0, 256, (*self.size, 3), np.uint8)

    def truth(self, i):
        return np.array([box for box, _ in self.content[i]], float).reshape(-1, 4), tuple(name for _, name in self.content[i])


def by_hand(count=6, per_page=2, **columns):
    rows = [{"page": f"p{i}.png", "path": f"p{i}.png", "width": 100, "height": 200} for i in range(count)]
    boxes = [{"page": f"p{i}.png", "ymin": 0.1 * k, "xmin": 0.2, "ymax": 0.1 * k + 0.05, "xmax": 0.6, "class": "signature", "signer": i} for i in range(count) for k in range(per_page)]
    return PageSet("by hand", pd.DataFrame(rows).assign(**columns), boxes, reader=lambda row: np.full((200, 100, 3), int(row["page"][1:-4]), np.uint8))


def picture(file, grey=240, size=(120, 90)):
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), np.full(size, grey, np.uint8))


def yolo_folder(folder, labels, names="signature\ninitials\nredaction\ndate", images=()):
    """images/NAME.png and labels/NAME.txt; a label of None is an image without a file of labels."""
    for k, (name, text) in enumerate({**labels, **dict.fromkeys(images)}.items()):
        picture(folder / "images" / f"{name}.png", 200 + k)
        if text is not None:
            (folder / "labels" / f"{name}.txt").parent.mkdir(parents=True, exist_ok=True)
            (folder / "labels" / f"{name}.txt").write_text(text)
    if names is not None:
        (folder / "classes.txt").write_text(names)
    return folder


# ---- PageSet

def test_a_page_set_holds_what_it_was_given():
    held = by_hand(3)
    assert len(held) == 3 and held.problems.empty and "6 signature" in repr(held)
    boxes, classes = held.truth("p2.png")
    assert boxes.dtype == np.float64 and boxes.shape == (2, 4) and classes == ("signature",) * 2
    assert held.read(1)[0, 0, 0] == 1 and held.read("p2.png")[0, 0, 0] == 2 and held.read(-1)[0, 0, 0] == 2
    assert held.boxes["signer"].tolist() == [0, 0, 1, 1, 2, 2] and "by hand" in held._repr_html_()
    assert held.sizes["height_px"].round(6).tolist() == [10.0] * 6 and held.sizes["width_px"].round(6).tolist() == [40.0] * 6


@given(st.lists(st.tuples(*[st.floats(allow_nan=True, width=32) | st.floats(-0.2, 1.2)] * 4, st.sampled_from([*CLASSES, "stamp"])), max_size=12))
@settings(max_examples=40)
def test_no_box_is_lost(rows):
    boxes = [{"page": "a", **dict(zip(BOX, numbers)), "class": name} for *numbers, name in rows]
    held = PageSet("any", [{"page": "a", "path": "a"}], boxes)
    assert len(held.boxes) + len(held.problems) == len(rows)
    inside = held.boxes[BOX].to_numpy()
    assert (inside >= 0).all() and (inside <= 1).all() and (inside[:, 2:] > inside[:, :2]).all() and set(held.boxes["class"]) <= set(CLASSES)
    assert held.problems["reason"].map(bool).all()


def test_a_hair_over_the_edge_is_cut_off_and_more_is_not():
    rows = [(-0.0005, 0.1, 0.2, 1.0005), (-0.1, 0.1, 0.2, 0.5), (-0.0009, 0.1, -0.0001, 0.5), (0.1, 0.1, 30, 50)]
    held = PageSet("edge", [{"page": "a", "path": "a"}], [{"page": "a", **dict(zip(BOX, box)), "class": "date"} for box in rows])
    assert held.truth(0)[0].tolist() == [[0, 0.1, 0.2, 1]]
    assert held.problems["reason"].tolist() == ["outside", "outside", "outside: pixels where fractions are meant?"]
    assert held.problems["source"].iloc[2] == "[0.1, 0.1, 30.0, 50.0]"


def test_wrong_tables_are_refused():
    good = [{"page": "a", "path": "a.png"}]
    for rows, boxes, words in [([{"page": "a"}], (), "add path"), (good * 2, (), "every page once"), (good, [{"page": "a", "class": "date"}], "add ymin"),
                               (good, [{"page": "z", "ymin": 0, "xmin": 0, "ymax": 1, "xmax": 1, "class": "date"}], "boxes of 'z'")]:
        with pytest.raises(DatasetLayoutError, match=words):
            PageSet("wrong", rows, boxes)


def test_asking_for_what_is_not_there():
    held = by_hand(2)
    for ask, error in [(2, IndexError), (-3, IndexError), ("p9.png", ValueError), (1.5, TypeError), (True, TypeError)]:
        for method in (held.read, held.truth):
            with pytest.raises(error):
                method(ask)
    for which in ([5], ["p9.png"], [0, 0], [True], [True, False, True]):
        with pytest.raises((IndexError, ValueError)):
            held.subset(which)


def test_a_subset_keeps_order_and_problems():
    broken = {"page": "p2.png", "ymin": 0.5, "xmin": 0.1, "ymax": 0.4, "xmax": 0.2, "class": "date"}
    held = PageSet("x", by_hand(3).pages, [broken, {**broken, "ymax": 0.6}])
    part = held.subset(["p2.png", "p0.png"])
    assert part.pages["page"].tolist() == ["p2.png", "p0.png"] and len(part.problems) == 1 and len(part.truth(0)[0]) == 1 and len(part.truth(1)[0]) == 0
    assert part.problems["reason"].tolist() == ["inverted"] and held.subset([0, 1]).problems.empty
    assert held.subset([False, False, True]).pages["page"].tolist() == ["p2.png"] and len(held.subset([])) == 0
    assert len(part.subset(0).problems) == 1        # not counted twice when a part is cut again


@given(st.integers(2, 12), st.integers(2, 5), st.integers(0, 99), st.booleans())
@settings(max_examples=12)
def test_folds_share_nothing_and_test_everything_once(count, k, seed, grouped):
    held = by_hand(count, 1, person=[i % 5 for i in range(count)])
    groups = min(count, 5) if grouped else count
    if k > groups:
        with pytest.raises(ValueError, match="k folds need"):
            held.folds(k, seed, "person" if grouped else None)
        return
    folds = held.folds(k, seed, "person" if grouped else None)
    assert sorted(page for _, test in folds for page in test.pages["page"]) == sorted(held.pages["page"])
    for train, test in folds:
        column = "person" if grouped else "page"
        assert not set(train.pages[column]) & set(test.pages[column]) and len(train) + len(test) == count and len(test)
        assert set(train.boxes["page"]) == set(train.pages["page"])
    again = held.subset(np.random.default_rng(seed).permutation(count)).folds(k, seed, "person" if grouped else None)
    assert [set(test.pages["page"]) for _, test in again] == [set(test.pages["page"]) for _, test in folds]


def test_folds_refuse_what_does_not_fold():
    held = by_hand(4, person=["a", None, "b", "c"])
    for words, arguments in [("column of .pages", {"group": "letter"}), ("no person", {"group": "person"}), ("k folds", {"k": 1}), ("k folds", {"k": 2.5})]:
        with pytest.raises(ValueError, match=words):
            held.folds(**arguments)


# ---- readers

@pytest.mark.parametrize("raw, ours", [("Signature", "signature"), ("SIGNATURES", "signature"), (" initial ", "initials"), ("Hand-written Date", "date"),
                                       ("handwritten_date", "date"), ("redacted", "redaction"), ("signature_g", "signature"), ("stamp", "stamp"), (3, "3")])
def test_spellings(raw, ours):
    assert class_name(raw) == ours


def test_yolo(tmp_path):
    yolo_folder(tmp_path / "y", {"a": "0 0.5 0.5 0.2 0.1\n\n3 0.25 0.25 0.5 0.5\n", "b": "", "10": "1 0.1 0.1 0.1 0.1"}, images=("c",))
    read = read_yolo(tmp_path / "y")
    assert read.pages["page"].tolist() == ["10.png", "a.png", "b.png", "c.png"] and read.pages["height"].tolist() == [120] * 4 and "split" not in read.pages
    boxes, classes = read.truth("a.png")
    assert np.allclose(boxes, [[0.45, 0.4, 0.55, 0.6], [0, 0, 0.5, 0.5]]) and classes == ("signature", "date")
    assert read.truth("b.png")[0].shape == read.truth("c.png")[0].shape == (0, 4) and read.read("c.png").shape == (120, 90, 3)


@pytest.mark.parametrize("line, reason", [("0 0.5 0.5 0.2", "five numbers"), ("0 0.5 0.5 0.2 0.1 0.9", "five numbers"), ("0 0.1 0.1 0.5 0.1 0.5 0.5", "polygon"),
                                          ("x 0.5 0.5 0.2 0.1", "five numbers"), ("0.5 0.5 0.5 0.2 0.1", "five numbers"), ("nan 0.5 0.5 0.2 0.1", "five numbers"),
                                          ("inf 0.5 0.5 0.2 0.1", "five numbers"), ("0 nan 0.5 0.2 0.1", "not finite"), ("0 0.5 0.5 0 0.1", "empty"),
                                          ("0 0.5 0.5 -0.1 0.1", "inverted"), ("0 500 300 20 10", "pixels"), ("9 0.5 0.5 0.2 0.1", "unknown class 'class 9'"),
                                          ("\0\1 \2", "five numbers")])
def test_broken_lines_are_listed_where_they_stand(tmp_path, line, reason):
    yolo_folder(tmp_path, {"a": f"0 0.5 0.5 0.2 0.1\n{line}\n"})
    read = read_yolo(tmp_path)
    assert len(read.boxes) == 1 and len(read.problems) == 1
    problem = read.problems.iloc[0]
    assert reason in problem.reason and problem["where"] == "labels/a.txt, line 2" and problem.page == "a.png" and problem.source.split() == line.split()


def test_yolo_names_its_classes(tmp_path):
    text = "0 0.5 0.5 0.2 0.1\n1 0.5 0.5 0.2 0.1"
    with pytest.raises(DatasetLayoutError, match="classes=.*signature"):
        read_yolo(yolo_folder(tmp_path / "none", {"a": text}, names=None))
    lone = read_yolo(yolo_folder(tmp_path / "lone", {"a": "0 0.5 0.5 0.2 0.1"}, names=None))
    assert lone.truth(0)[1] == ("signature",) and "taken to be signatures" in lone.notes[0]
    for given_ in ({0: "Initial", 1: "date"}, ["initials", "date"]):
        assert read_yolo(tmp_path / "none", given_).truth(0)[1] == ("initials", "date")
    for yaml in ("names: [initials, date]\nnc: 2", "nc: 2\nnames:\n- 'initials'\n- \"date\"\n", "names:\n  1: date  # day\n  0: initial\ntrain: x", "names: {0: initials, 1: date}"):
        (tmp_path / "none" / "data.yaml").write_text(yaml)
        assert read_yolo(tmp_path / "none").truth(0)[1] == ("initials", "date"), yaml


def test_yolo_in_parts(tmp_path):
    for part in ("train", "valid"):
        yolo_folder(tmp_path / part, {"a": "0 0.5 0.5 0.2 0.1"}, names=None)
    read = read_yolo(tmp_path, {0: "signature"})
    assert read.pages["page"].tolist() == ["train/a.png", "valid/a.png"] and read.pages["split"].tolist() == ["train", "valid"]
    yolo_folder(tmp_path / "deep", {"train/a": "0 0.5 0.5 0.2 0.1", "val/a": ""})
    deep = read_yolo(tmp_path / "deep")
    assert deep.pages["split"].tolist() == ["train", "val"] and len(deep.truth("train/a.png")[0]) == 1


def test_yolo_refuses_labels_without_images(tmp_path):
    yolo_folder(tmp_path, {"a": ""})
    (tmp_path / "labels" / "b.txt").write_text("")
    with pytest.raises(DatasetLayoutError, match="labels/b.txt"):
        read_yolo(tmp_path)
    for folder in (tmp_path / "images", tmp_path / "nowhere"):
        with pytest.raises(DatasetLayoutError, match="images/ beside"):
            read_yolo(folder)


def coco_folder(folder, notes, place="data", **more):
    for k, name in enumerate(("a.png", "b.png")):
        picture(folder / place / name, 200 + k)
    content = {"images": [{"id": 7, "file_name": "a.png", "width": 90, "height": 120, "scanner": "flat"}, {"id": 8, "file_name": "b.png"}],
               "categories": [{"id": 1, "name": "Signature"}, {"id": 2, "name": "Datum"}], "annotations": notes, **more}
    (folder / "labels.json").write_text(json.dumps(content))
    return folder


def test_coco(tmp_path):
    notes = [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [9, 12, 45, 60], "iscrowd": 0, "person_id": 3, "attributes": {"forged": True}},
             {"id": 2, "image_id": 8, "category_id": 2, "bbox": [0, 0, 90, 120]}, {"id": 3, "image_id": 8, "category_id": 1, "bbox": [0, 0, 9, 12], "iscrowd": 1}]
    read = read_coco(coco_folder(tmp_path, notes), class_names={"Datum": "date"})
    assert np.allclose(read.truth("a.png")[0], [[0.1, 0.1, 0.6, 0.6]]) and read.truth("b.png")[1] == ("date",)
    assert np.allclose(read.truth("b.png")[0], [[0, 0, 1, 1]])          # its size was read from the image
    assert read.boxes["person_id"].iloc[0] == 3 and read.boxes["forged"].iloc[0] == True and read.pages["scanner"].iloc[0] == "flat"  # noqa: E712
    assert read.notes == ["1 box(es) marked iscrowd left out"] and read.problems.empty
    unnamed = read_coco(tmp_path)
    assert unnamed.problems["reason"].tolist() == ["unknown class 'Datum'"] and unnamed.problems["source"].tolist() == ["[0, 0, 90, 120]"]


@pytest.mark.parametrize("place", ["data", "images", "."])
def test_coco_finds_its_images(tmp_path, place):
    coco_folder(tmp_path, [], place)
    assert len(read_coco(tmp_path / "labels.json")) == len(read_coco(tmp_path, images=tmp_path / place)) == 2


@pytest.mark.parametrize("note, reason", [({"bbox": [1, 2, 3]}, "four numbers"), ({"bbox": None}, "four numbers"), ({"bbox": ["x", 1, 2, 3]}, "four numbers"), ({}, "four numbers"),
                                          ({"bbox": [1, 2, 0, 3]}, "empty"), ({"bbox": [80, 2, 30, 3]}, "outside"), ({"bbox": [1, 2, -3, 3]}, "inverted"),
                                          ({"bbox": [1, 2, 3, 3], "image_id": 99}, "not listed"), ({"bbox": [1, 2, 3, 3], "category_id": 5}, "unknown class 'category 5'")])
def test_coco_lists_broken_boxes(tmp_path, note, reason):
    read = read_coco(coco_folder(tmp_path, [{"id": 4, "image_id": 7, "category_id": 1, **note}]))
    assert len(read.boxes) == 0 and len(read.problems) == 1 and reason in read.problems["reason"].iloc[0] and read.problems["where"].iloc[0] == "annotation 4"


def test_coco_refuses(tmp_path):
    coco_folder(tmp_path, [])
    (tmp_path / "data" / "b.png").unlink()
    with pytest.raises(DatasetLayoutError, match="1 of 2 missing: b.png"):
        read_coco(tmp_path)
    for text, words in [("{", "no whole JSON"), ("[]", "a list"), ('{"images": []}', "images, annotations and categories")]:
        (tmp_path / "labels.json").write_text(text)
        with pytest.raises(DatasetLayoutError, match=words):
            read_coco(tmp_path)
    with pytest.raises(DatasetLayoutError, match="no file"):
        read_coco(tmp_path / "other.json")
    with pytest.raises(DatasetLayoutError, match="usual names"):
        read_coco(tmp_path / "data")


VOC = "<annotation><size><width>90</width><height>120</height></size>{}</annotation>"
THING = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"


def test_voc(tmp_path):
    for k, name in enumerate("ab"):
        picture(tmp_path / "JPEGImages" / f"{name}.png", 200 + k)
    (tmp_path / "Annotations").mkdir()
    things = THING.format("Signature", 1, 1, 90, 120) + THING.format("initial", 46, 61, 90, 60) + THING.format("stamp", 1, 1, 9, 9) + THING.format("date", 1, "", 9, 9)
    (tmp_path / "Annotations" / "a.xml").write_text(VOC.format(things))
    read = read_voc(tmp_path)
    assert read.truth("a.png")[0].tolist() == [[0, 0, 1, 1]] and len(read.truth("b.png")[0]) == 0
    assert read.problems["reason"].tolist() == ["empty", "unknown class 'stamp'", "bndbox must hold four numbers: xmin, ymin, xmax, ymax in pixels"]
    (tmp_path / "Annotations" / "a.xml").write_text(VOC.format(THING.format("Signature", 0, 0, 44, 59)))
    assert np.allclose(read_voc(tmp_path, first_pixel=0).truth(0)[0], [[0, 0, 0.5, 0.5]])
    (tmp_path / "Annotations" / "a.xml").write_text("<annotation><object>")
    with pytest.raises(DatasetLayoutError, match="a.xml, which is damaged"):
        read_voc(tmp_path)
    (tmp_path / "Annotations" / "z.xml").write_text(VOC.format(""))
    with pytest.raises(DatasetLayoutError, match="z.xml"):
        read_voc(tmp_path)
    with pytest.raises(DatasetLayoutError, match="Pascal VOC"):
        read_voc(tmp_path / "JPEGImages")


# ---- shards

@given(st.binary(max_size=3000))
@settings(max_examples=40)
def test_the_checksum_is_the_definition(data):
    slow = 0xFFFFFFFF
    for byte in data:
        slow ^= byte
        for _ in range(8):
            slow = slow >> 1 ^ (0x82F63B78 if slow & 1 else 0)
    assert crc32c(data) == slow ^ 0xFFFFFFFF


@pytest.mark.parametrize("data, expected", [(b"", 0), (b"123456789", 0xE3069283), (b"\0" * 32, 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E)])
def test_the_checksum_of_the_rfc(data, expected):
    assert crc32c(data) == expected


FEATURES = st.dictionaries(st.text(min_size=1, max_size=12), st.lists(st.binary(max_size=20), max_size=4) | st.lists(st.integers(-2**63, 2**63 - 1), min_size=1, max_size=4)
                           | st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=4), max_size=4)


@given(FEATURES)
def test_an_example_there_and_back(features):
    assert parse_example(example_bytes(features)) == {name: list(values) for name, values in features.items()}


@given(st.binary(max_size=80))
@settings(max_examples=300)
def test_any_bytes_are_an_example_or_a_value_error(data):
    try:
        assert isinstance(parse_example(data), dict)
    except ValueError as error:
        assert "tf.train.Example" in str(error)


def test_examples_as_tensorflow_writes_and_reads_them():
    tf = pytest.importorskip("tensorflow")
    features = {"image/encoded": [b"\0\xff" * 300], "names": [b"a", b""], "sides": [0.25, -1.5, 3e38], "labels": [1, -3, 2**40, -2**63]}
    kinds = {"image/encoded": "bytes_list", "names": "bytes_list", "sides": "float_list", "labels": "int64_list"}
    theirs = tf.train.Example()
    for name, values in features.items():
        getattr(theirs.features.feature[name], kinds[name]).value.extend(values)
    read = parse_example(theirs.SerializeToString())
    assert {name: pytest.approx(values) if name == "sides" else values for name, values in features.items()} == read
    ours = tf.train.Example.FromString(example_bytes(features))
    assert ours == theirs
    one_by_one = bytes.fromhex("0a110a0f0a016112" "0a" "1a0808010802" "0803" "0804")     # int64s that are not packed, as old writers did
    assert parse_example(one_by_one)["a"] == [1, 2, 3, 4] == list(tf.train.Example.FromString(one_by_one).features.feature["a"].int64_list.value)


def test_shards_as_tensorflow_reads_and_writes_them(tmp_path):
    tf = pytest.importorskip("tensorflow")
    content = [[((0.1, 0.2, 0.3, 0.4), "signature"), ((0.5, 0.5, 0.9, 0.7), "date")], []]
    [shard] = write_tfrecords(Drawn(content), tmp_path)
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(shard))]
    spec = {f"image/object/bbox/{side}": tf.io.VarLenFeature(tf.float32) for side in BOX}
    spec |= {"image/encoded": tf.io.FixedLenFeature([], tf.string), "image/height": tf.io.FixedLenFeature([], tf.int64), "image/filename": tf.io.FixedLenFeature([], tf.string),
             "image/object/class/text": tf.io.VarLenFeature(tf.string), "image/object/class/label": tf.io.VarLenFeature(tf.int64)}
    first, second = (tf.io.parse_single_example(record, spec) for record in records)
    assert np.allclose(first["image/object/bbox/xmin"].values, [0.2, 0.5]) and first["image/object/class/text"].values.numpy().tolist() == [b"signature", b"date"]
    assert first["image/object/class/label"].values.numpy().tolist() == [1, 4] and int(first["image/height"]) == 40 and len(second["image/object/class/text"].values) == 0
    assert np.array_equal(tf.io.decode_image(first["image/encoded"], 3).numpy(), Drawn(content).read(0))
    with tf.io.TFRecordWriter(str(tmp_path / "theirs.record")) as writer:
        for record in records:
            writer.write(record)
    assert (tmp_path / "theirs.record").read_bytes() == shard.read_bytes()
    assert np.allclose(read_tfrecords(tmp_path / "theirs.record").truth(0)[0], [[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.9, 0.7]], atol=1e-6)


@pytest.fixture(scope="module")
def two_records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    [shard] = write_tfrecords(Drawn([[((0.1, 0.2, 0.3, 0.4), "signature")], []], size=(4, 4)), folder)
    return shard.read_bytes()


def test_a_shard_cut_anywhere(two_records, tmp_path):
    first = 16 + struct.unpack("<Q", two_records[:8])[0]
    file = tmp_path / "cut.tfrecord"
    for length in range(len(two_records)):
        file.write_bytes(two_records[:length])
        if length in (0, first):        # cut between records: what is there is whole, and nothing tells that more should follow
            if length:
                assert len(read_tfrecords(file)) == 1
            else:
                with pytest.raises(DatasetLayoutError, match="none in cut.tfrecord"):
                    read_tfrecords(file)
            continue
        whole, lost = int(length > first), []
        assert [number for number, _, _ in pages._records(file, "skip", lost)] == list(range(whole)) and [(error.record, error.rest_lost) for error in lost] == [(whole, True)]
        if length % 53 in (1, 2):       # the same through the reader, at some of the places
            with pytest.raises(DamagedRecord, match=f"record {whole} of .*cut.tfrecord") as caught:
                read_tfrecords(file)
            saved = read_tfrecords(file, on_error="skip")
            assert caught.value.record == whole == len(saved) and saved.problems["source"].tolist() == [f"record {whole}"]
            if whole:
                assert saved.read(0).shape == (4, 4, 3) and len(saved.truth(0)[0]) == 1


def test_a_bit_turned_anywhere(two_records, tmp_path):
    first = 16 + struct.unpack("<Q", two_records[:8])[0]
    file = tmp_path / "turned.tfrecord"
    for place in [*range(20), *range(20, len(two_records), 37)]:
        damaged = bytearray(two_records)
        damaged[place] ^= 1 << place % 8
        file.write_bytes(damaged)
        with pytest.raises(DamagedRecord) as caught:
            read_tfrecords(file)
        assert caught.value.record == int(place >= first)
        head = (place - first * (place >= first)) < 12
        assert caught.value.rest_lost == head and len(read_tfrecords(file, on_error="skip")) == (int(place >= first) if head else 1)


def test_a_shard_that_changes_after_it_was_indexed(two_records, tmp_path):
    file = tmp_path / "x.tfrecord"
    file.write_bytes(two_records)
    read = read_tfrecords(file)
    file.write_bytes(two_records[:-9])
    with pytest.raises(DamagedRecord, match="record 1"):
        read.read(1)


def test_other_records_are_refused(tmp_path):
    def shard(name, *records):
        (tmp_path / name).write_bytes(b"".join(pages._framed(record) for record in records))
        return tmp_path / name

    with pytest.raises(DatasetLayoutError, match="image/encoded"):
        read_tfrecords(shard("a.tfrecord", example_bytes({"label": [1]})))
    with pytest.raises(DamagedRecord, match="tf.train.Example"):
        read_tfrecords(shard("b.tfrecord", b"\x0a\xff\xff"))
    (tmp_path / "c.tfrecord").write_bytes(b"\x1f\x8b" + bytes(40))
    with pytest.raises(DamagedRecord, match="unpack"):
        read_tfrecords(tmp_path / "c.tfrecord")
    with pytest.raises(DatasetLayoutError, match="no file"):
        read_tfrecords(tmp_path / "z.tfrecord")
    with pytest.raises(ValueError, match="on_error"):
        read_tfrecords(tmp_path / "a.tfrecord", on_error="ignore")
    png = cv2.imencode(".png", np.full((6, 5), 9, np.uint8))[1].tobytes()
    sides = {f"image/object/bbox/{side}": [0.1 + 0.2 * (k > 1)] for k, side in enumerate(BOX)}
    odd = shard("d.tfrecord", example_bytes({"image/encoded": [png], **sides, "image/object/class/label": [2]}),
                example_bytes({"image/encoded": [png], **sides, "image/object/class/text": ["date", "date"]}))
    read = read_tfrecords(odd)
    assert read.pages["page"].tolist() == ["d.tfrecord#0", "d.tfrecord#1"] and read.pages["height"].tolist() == [6, 6]
    assert "unknown class 'label 2'" in read.problems["reason"].iloc[0] and "as many" in read.problems["reason"].iloc[1]
    assert read_tfrecords(odd, {2: "Initial"}).truth(0)[1] == ("initials",)


# ---- SignVerOD

def signverod_tables(folder, ids, train, test, scale=None, **more):
    """image_ids.csv for pages p0, p1, …; train and test: (image_id, x in hundredths, category, box id)."""
    for k in range(len(ids)):
        picture(folder / "images" / f"p{k}.png", 200 + k)
    images = pd.DataFrame({"height": 120, "width": 90, "id": ids, "file_name": [f"p{k}.png" for k in range(len(ids))]}).assign(**more)
    images.to_csv(folder / "image_ids.csv", index=False)
    for name, rows in (("train", train), ("test", test)):
        boxes = [[x / 100, 0.5, 0.25, 0.125] for _, x, _, _ in rows]
        boxes = boxes if scale is None else [[box[0] * 90, box[1] * 120, box[2] * 90, box[3] * 120] for box in boxes]
        table = pd.DataFrame({"area": 0.03, "bbox": [str(box) for box in boxes], "category_id": [row[2] for row in rows], "id": [row[3] for row in rows], "image_id": [row[0] for row in rows]})
        table.to_csv(folder / f"{name}.csv", index=False)
    return folder


def lefts(read):
    return {page: sorted(round(100 * box[1]) for box in read.truth(page)[0]) for page in read.pages["page"]}


def test_signverod_tables_with_ids_that_begin_twice(tmp_path):
    folder = signverod_tables(tmp_path / "a", [1, 2, 3, 1, 2], [(1, 10, 1, 1), (2, 20, 2, 2), (2, 21, 3, 3), (1, 40, 4, 1)], [(3, 30, 1, 4), (1, 40, 4, 1), (2, 50, 1, 2)])
    read = read_signverod(folder)
    assert lefts(read) == {"p0.png": [10], "p1.png": [20, 21], "p2.png": [30], "p3.png": [40], "p4.png": [50]} and read.problems.empty
    assert read.pages["split"].tolist() == ["train", "train", "test", "train", "test"]
    assert "begin 2 times" in read.notes[0] and "1 page(s) of test.csv are in train.csv" in read.notes[1]
    assert np.allclose(read.truth("p0.png")[0], [[0.5, 0.1, 0.625, 0.35]]) and read.truth("p1.png")[1] == ("initials", "redaction")
    pixels = signverod_tables(tmp_path / "b", [1, 2, 3, 1, 2], [(1, 10, 1, 1), (2, 20, 2, 2), (1, 40, 4, 1)], [(3, 30, 1, 4)], scale=True)
    assert lefts(read_signverod(pixels)) == {"p0.png": [10], "p1.png": [20], "p2.png": [30], "p3.png": [40], "p4.png": []}


def test_signverod_rows_out_of_order_are_not_guessed_at(tmp_path):
    rows = [(1, 10, 1, 1), (3, 30, 1, 9), (1, 40, 4, 1), (2, 20, 2, 2), (1, 11, 1, 1)]
    read = read_signverod(signverod_tables(tmp_path, [1, 2, 3, 1, 2], rows, []))
    assert lefts(read)["p2.png"] == [30] and len(read.boxes) == 1                 # id 3 occurs once, so it can be told
    assert read.problems["reason"].tolist() == ["no page can be told from its image_id"] * 4 and read.problems["where"].iloc[0] == "train.csv, line 2"


def test_signverod_single_round_and_repaired_ids(tmp_path):
    single = signverod_tables(tmp_path / "a", [1, 2], [(2, 20, 1, 5), (1, 10, 1, 4)], [])       # any order will do
    assert lefts(read_signverod(single)) == {"p0.png": [10], "p1.png": [20]}
    repaired = signverod_tables(tmp_path / "b", [1, 1], [(1, 20, 1, 5), (1, 10, 1, 4)], [], id_new=[1, 2])
    table = pd.read_csv(repaired / "train.csv").assign(image_id_new=[2, 1])
    table.loc[0, "bbox"] = "[0.2, 0.5"
    table.to_csv(repaired / "train.csv", index=False)
    read = read_signverod(repaired)
    assert lefts(read) == {"p0.png": [10], "p1.png": []} and read.problems["page"].tolist() == ["p1.png"] and "four numbers" in read.problems["reason"].iloc[0]


def test_signverod_shards_come_before_tables(tmp_path):
    folder = signverod_tables(tmp_path / "SignverOD", [1], [(1, 10, 1, 1)], [])
    for split in ("train", "eval"):
        write_tfrecords(Drawn([[((0.1, 0.2, 0.3, 0.4), "initials")]]), folder / "tfrecords", split=split)
    for place in (folder, tmp_path):
        read = read_signverod(place)
        assert read.pages["split"].tolist() == ["eval", "train"] and read.pages["page"].tolist() == ["000000.png", "000000.png (2)"] and "were not read" in read.notes[0]
    assert lefts(read_signverod(folder, "csv")) == {"p0.png": [10]}
    with pytest.raises(ValueError, match="source"):
        read_signverod(folder, "parquet")
    with pytest.raises(DatasetLayoutError, match="signver data download signverod"):
        read_signverod(folder / "images")
    (folder / "images" / "p0.png").unlink()
    with pytest.raises(DatasetLayoutError, match="p0.png"):
        read_signverod(folder, "csv")
    (folder / "train.csv").write_text("a,b\n1,2\n")
    picture(folder / "images" / "p0.png")
    with pytest.raises(DatasetLayoutError, match="bbox"):
        read_signverod(folder, "csv")


# ---- writing

def assert_same_boxes(read, drawn):
    assert len(read) == len(drawn)
    for i in range(len(drawn)):
        boxes, classes = drawn.truth(i)
        assert np.abs(read.truth(i)[0] - boxes).max(initial=0) < 1e-6 and read.truth(i)[1] == classes
        assert np.array_equal(read.read(i), drawn.read(i))


@given(PAGES, st.integers(1, 3))
@settings(max_examples=20)
def test_shards_there_and_back(tmp_path_factory, content, shards):
    drawn, folder = Drawn(content), tmp_path_factory.mktemp("shards")
    files = write_tfrecords(drawn, folder, shards=min(shards, len(content)))
    read = read_tfrecords(folder)
    assert sorted(os.listdir(folder)) == sorted([*(file.name for file in files), "label_map.pbtxt"])
    assert read.problems.empty
    assert_same_boxes(read.subset([f"{i:06d}.png" for i in range(len(drawn))]), drawn)


@given(PAGES)
@settings(max_examples=20)
def test_coco_there_and_back(tmp_path_factory, content):
    drawn, folder = Drawn(content), tmp_path_factory.mktemp("coco")
    read = read_coco(write_coco(drawn, folder))
    assert read.problems.empty
    assert_same_boxes(read, drawn)


def test_a_page_set_goes_through_all_layouts(tmp_path):
    SyntheticPages(3, seed=2, dpi=50).write(tmp_path / "made")
    made = read_coco(tmp_path / "made")
    assert {"signer"} <= set(made.boxes) and {"kind", "look"} <= set(made.pages) and made.problems.empty and set(made.boxes["class"]) <= set(CLASSES)
    shards = read_tfrecords(write_tfrecords(made, tmp_path / "shards", shards=2))
    copied = read_coco(write_coco(shards, tmp_path / "copied"))
    alone = read_coco(write_coco(made, tmp_path / "labels" / "alone.json"))
    for name in made.pages["page"]:
        for other in (shards, copied):
            assert np.abs(other.truth(name)[0] - made.truth(name)[0]).max(initial=0) < 1e-6 and other.truth(name)[1] == made.truth(name)[1]
            assert np.array_equal(other.read(name), made.read(name))
        assert (tmp_path / "copied" / "images" / name).read_bytes() == (tmp_path / "made" / name).read_bytes()      # the file itself, not a new one
    assert [alone.truth(i)[1] for i in range(3)] == [made.truth(i)[1] for i in range(3)] and np.array_equal(alone.read(1), made.read(1))
    assert alone.boxes["signer"].tolist() == made.boxes["signer"].tolist() and alone.pages["kind"].tolist() == made.pages["kind"].tolist()


def test_bytes_are_kept_only_where_every_decoder_sees_the_same(tmp_path):
    colour = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    for name, image in (("a.png", colour), ("b.jpg", colour), ("c.png", np.dstack([colour, np.full((40, 30), 128, np.uint8)])), ("d.png", colour.astype(np.uint16) * 257), ("e.bmp", colour)):
        assert cv2.imwrite(str(tmp_path / name), image)
    held = PageSet("mixed", [{"page": name, "path": str(tmp_path / name)} for name in ("a.png", "b.jpg", "c.png", "d.png", "e.bmp")])
    write_tfrecords(held, tmp_path / "out")
    read = read_tfrecords(tmp_path / "out")
    for i, kept in enumerate((True, True, False, False, False)):
        assert (pages._encoded(read.pages.iloc[i]) == (tmp_path / held.pages["page"][i]).read_bytes()) == kept
        assert np.array_equal(read.read(i), held.read(i))
    assert read.pages["page"].tolist() == ["a.png", "b.jpg", "c.png", "d.png", "e.bmp.png"]
    write_tfrecords(held, tmp_path / "small", quality=50)
    kinds = [read_image(pages._encoded(row), mode="rgb").shape and pages._plain(pages._encoded(row)) for _, row in read_tfrecords(tmp_path / "small").pages.iterrows()]
    assert kinds == ["jpeg"] * 5


class Failing(Drawn):
    def read(self, i):
        if i == 2:
            raise KeyboardInterrupt
        return super().read(i)


def test_an_interrupted_write_leaves_no_half_set(tmp_path):
    content = [[((0.1, 0.2, 0.3, 0.4), "signature")]] * 4
    with pytest.raises(KeyboardInterrupt):
        write_tfrecords(Failing(content), tmp_path / "t", shards=2)
    assert os.listdir(tmp_path / "t") == []
    with pytest.raises(KeyboardInterrupt):
        write_coco(Failing(content), tmp_path / "c")
    assert sorted(os.listdir(tmp_path / "c")) == ["images"] and not [file for file in os.listdir(tmp_path / "c" / "images") if file.endswith(".part")]
    assert len(read_coco(write_coco(Drawn(content), tmp_path / "c"))) == 4         # the same call goes on
    write_tfrecords(Drawn(content), tmp_path / "t", shards=2)


def test_nothing_is_overwritten_and_nothing_broken_is_written(tmp_path):
    good = Drawn([[((0.1, 0.2, 0.3, 0.4), "signature")]])
    write_tfrecords(good, tmp_path)
    for arguments in ({}, {"shards": 1}):
        with pytest.raises(FileExistsError, match="never overwrites"):
            write_tfrecords(good, tmp_path, **arguments)
    with pytest.raises(FileExistsError, match="never overwrites"):
        write_tfrecords(Drawn(good.content * 3), tmp_path, shards=3)
    write_tfrecords(good, tmp_path, split="eval")
    write_coco(good, tmp_path)
    with pytest.raises(FileExistsError, match="labels.json"):
        write_coco(good, tmp_path)
    for box, name in [((0.3, 0.2, 0.1, 0.4), "signature"), ((0.1, 0.2, 0.3, 40), "date"), ((0.1, 0.2, 0.3, 0.4), "stamp")]:
        for write in (write_tfrecords, write_coco):
            with pytest.raises(ValueError, match="only sound boxes"):
                write(Drawn([[(box, name)]]), tmp_path / "bad")
    for arguments in ({"shards": 0}, {"shards": 2}, {"shards": True}, {"quality": 101}, {"quality": "high"}, {"split": "../x"}):
        with pytest.raises(ValueError, match="must be|there must"):
            write_tfrecords(good, tmp_path / "bad", **arguments)
    with pytest.raises(ValueError, match="name a folder"):
        write_coco(good, tmp_path / "x.json")
    assert not list((tmp_path / "bad").glob("*"))


def test_a_page_name_leads_out_of_no_folder(tmp_path):
    held = PageSet("sly", [{"page": "../../evil.png", "path": "x"}], reader=lambda row: np.zeros((4, 4, 3), np.uint8))
    write_coco(held, tmp_path / "a" / "b" / "c")
    assert sorted(file.name for file in tmp_path.rglob("*.png")) == ["evil.png"] and (tmp_path / "a/b/c/images/evil.png").is_file()


# ---- recognising and checking

def test_layouts_are_recognised(tmp_path):
    yolo_folder(tmp_path / "yolo", {"a": "0 0.5 0.5 0.2 0.1"})
    coco_folder(tmp_path / "coco", [])
    coco_folder(tmp_path / "sheets" / "genuine", [])
    coco_folder(tmp_path / "sheets" / "forged", [])
    signverod_tables(tmp_path / "od", [1], [(1, 10, 1, 1)], [])
    picture(tmp_path / "voc" / "a.png")
    (tmp_path / "voc" / "a.xml").write_text(VOC.format(""))
    write_tfrecords(Drawn([[]]), tmp_path / "records")
    picture(tmp_path / "signer" / "genuine" / "1.png")
    (tmp_path / "signer" / "synthetic.json").write_text("{}")
    found = {child.name: page_format(child) for child in tmp_path.iterdir()}
    assert found == {"yolo": "yolo", "coco": "coco", "sheets": "ssbi", "od": "signverod", "voc": "voc", "records": "tfrecord", "signer": None}
    for name, kind in found.items():
        if kind not in (None, "ssbi"):
            assert len(open_pages(tmp_path / name)) == len(open_pages(tmp_path / name, kind)) > 0
    assert page_format(tmp_path / "coco" / "labels.json") == "coco" and page_format(tmp_path / "nowhere") is None and page_format(tmp_path / "yolo" / "classes.txt") is None
    with pytest.raises(DatasetLayoutError, match="yolo: images/ beside labels.*voc"):
        open_pages(tmp_path / "signer")
    with pytest.raises(DatasetLayoutError, match="nothing at"):
        open_pages(tmp_path / "nowhere")
    with pytest.raises(DatasetLayoutError, match="person_id"):
        open_pages(tmp_path / "sheets")
    with pytest.raises(ValueError, match="format must be"):
        open_pages(tmp_path / "yolo", "pdf")
    with pytest.raises(DatasetLayoutError, match="SSBI"):
        open_pages("ssbi_sheets", data_dir=tmp_path)


def test_the_check_finds_what_is_wrong(tmp_path):
    yolo_folder(tmp_path, {"a": "0 0.5 0.5 0.2 0.1\n0 0.5 0.5 0.2 0.1\n0 0.5 0.5 0.1 0.001", "b": "7 0.5 0.5 0.2 0.1", "c": "", "d": "", "e": ""})
    (tmp_path / "images" / "c.png").write_bytes(b"no picture")
    picture(tmp_path / "images" / "d.png", 7)
    picture(tmp_path / "images" / "e.png", 7)
    report = check_pages(read_yolo(tmp_path))
    assert not report.sound and report.pages == 5 and report.classes == {"signature": 3} and report.negatives == 4 and report.repeated == 1
    assert [page for page, _ in report.unreadable] == ["c.png"] and report.duplicates["page"].tolist() == ["d.png", "e.png"] and len(report.small) == 1 and len(report.problems) == 1
    text = str(report)
    for words in ("c.png: an image must", "b.png, labels/b.txt, line 1: unknown class 'class 7'", "d.png = e.png", "drawn twice", "0.5 %"):
        assert words in text and len(report.advice) == 5
    assert "Broken boxes" in report._repr_html_() and "&lt;" not in text


def test_the_check_of_a_sound_set_and_of_suspicious_ones():
    sound = check_pages(by_hand(6))
    assert sound.sound and sound.advice == [] and "nothing to object to" in str(sound) and "Nothing to object" in sound._repr_html_()
    rows = pd.DataFrame({"page": [str(i) for i in range(24)], "path": "x", "split": ["train", "test"] * 12, "height": 64, "width": 64})
    boxes = [{"page": str(i), "ymin": 0.1, "xmin": 0.1, "ymax": 0.2, "xmax": 0.5, "class": "signature"} for i in range(24)]
    square = check_pages(PageSet("square", rows, boxes, reader=lambda row: np.full((50, 50, 3), int(row["page"]) % 23, np.uint8)))
    text = " ".join(square.advice)
    for words in ("exactly square", "exactly one box", "24 page(s) have another size", "once"):
        assert words in text
    two = PageSet("two", rows[:2], boxes[:2], reader=lambda row: np.zeros((50, 40, 3), np.uint8))
    assert "in training and in test" in " ".join(check_pages(two).advice)
    assert "0 pages" in str(check_pages(two.subset([])))


def signver(*words):
    return CliRunner().invoke(app, [str(word) for word in words], prog_name="signver")


def test_the_command_checks_pages(tmp_path, two_records):
    folder = yolo_folder(tmp_path / "letters", {"a": "0 0.5 0.5 0.2 0.1", "b": ""})
    assert signver("data", "check", folder).exit_code == 0
    (folder / "labels" / "b.txt").write_text("0 500 500 20 10")
    result = signver("data", "check", folder)
    assert result.exit_code == 1 and "labels/b.txt, line 1: outside" in result.stdout
    values = json.loads(signver("data", "check", folder, "--json").stdout)
    assert values["sound"] is False and values["pages"] == 2 and values["boxes"] == {"signature": 1} and values["problems"][0]["page"] == "b.png"
    (tmp_path / "cut.tfrecord").write_bytes(two_records[:-5])
    result = signver("data", "check", tmp_path / "cut.tfrecord")
    assert result.exit_code == 1 and "cut.tfrecord: the file ends 5 bytes before" in result.stdout
    (folder / "labels" / "z.txt").write_text("")
    assert signver("data", "check", folder).exit_code == 2
    assert signver("data", "check", "ssbi_sheets", "--data", tmp_path).exit_code == 2


# ---- real sets

def test_tobacco_pages(data_dir):
    read = open_pages("tobacco_pages", data_dir=data_dir)
    assert len(read) == len(read.boxes) == 424 and read.problems.empty and set(read.boxes["class"]) == {"signature"} and read.boxes["page"].is_unique
    assert (read.pages[["height", "width"]] == 1000).all(axis=None) and "must not" in read.notes[0]
    report = check_pages(read.subset(range(0, 424, 18)))
    assert report.sound and any("square" in line for line in report.advice) and any("exactly one box" in line for line in report.advice)


def test_ssbi_sheets(data_dir):
    read = open_pages("ssbi_sheets", data_dir=data_dir)
    assert len(read) == 25 and len(read.boxes) == 200 and read.problems.empty and set(read.boxes.groupby("page").size()) == {8}
    assert read.pages.groupby("forged").size().to_dict() == {False: 18, True: 7} and read.boxes["forged"].sum() == 56
    assert (read.pages["page"].str[:3].astype(int).astype(str) == read.pages["person_id"]).all() and read.read(0).shape == (3507, 2480, 3)
    for train, test in read.folds(5, group="person_id"):
        assert not set(train.pages["person_id"]) & set(test.pages["person_id"])
    assert len(read_ssbi(data_dir / "ssbi_sheets")) == 25 and page_format(data_dir / "ssbi_sheets") == "ssbi" and page_format(data_dir / "cedar") is None


def test_an_unreadable_page_says_so(tmp_path):
    yolo_folder(tmp_path, {"a": ""})
    (tmp_path / "images" / "a.png").write_bytes(b"")
    with pytest.raises(UnreadableImage):
        read_yolo(tmp_path).read(0)
