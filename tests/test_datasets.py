"""Data sets: the table, the readers on every ordinary layout, download, check, splits. Files are tiny; the real sets need SIGNVER_DATA."""
import hashlib
import os
import shutil
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from signver_kit import datasets
from signver_kit.datasets import (
    KINDS,
    KNOWN_SETS,
    PROPERTIES,
    BadImages,
    DatasetLayoutError,
    DownloadError,
    SignatureSet,
    Split,
    check_dataset,
    data_directory,
    download,
    list_datasets,
    open_dataset,
    read_bhsig260,
    read_cedar,
    read_crossmedia,
    read_csv,
    read_folder,
    read_gpds,
    read_mcyt75,
    read_sigcomp2011,
    read_utsig,
    signer_folds,
    split_signers,
)
from signver_kit.images import NoInk, UnreadableImage, ink_image


def scribble(seed, paper=250, ink=40, thick=2):
    """uint8 (40, 90): a zigzag that the seed decides."""
    rng = np.random.default_rng(seed)
    points = np.stack([np.linspace(8, 82, 9), rng.uniform(8, 32, 9)], axis=1).astype(np.int32)
    image = np.full((40, 90), paper, np.uint8)
    cv2.polylines(image, [points], False, ink, thick)
    return image


def write(root, names, image=None):
    """Scribbles, each its own, under root; returns root."""
    for number, name in enumerate(names):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(file), scribble(number) if image is None else image)
    return root


def found(signatures):
    """The table as a set of (signer, kind, index)."""
    return set(signatures.table[["signer", "kind", "index"]].itertuples(index=False, name=None))


def drawn(signers=4, genuine=3, skilled=3, name="drawn"):
    """A set in memory; its reader counts how often it is asked."""
    rows = [{"path": f"{s}/{kind}/{i}", "signer": str(s), "kind": kind, "index": i}
            for s in range(signers) for kind, n in zip(KINDS, (genuine, skilled)) for i in range(1, n + 1)]
    asked = []

    def reader(path):
        asked.append(path)
        return scribble(int(hashlib.sha256(path.encode()).hexdigest()[:8], 16))

    signatures = SignatureSet(name, rows, reader)
    signatures.asked = asked
    return signatures


# ---- the table and the set ----

def test_table_is_normalised():
    table = SignatureSet("x", {"path": ["a", "b"], "signer": [7, 10], "kind": "genuine", "index": ["1", "2"], "pen": ["red", "blue"]}).table
    assert list(table.columns) == ["path", "signer", "kind", "index", "hash", "pen"]
    assert table.signer.tolist() == ["7", "10"] and table["index"].tolist() == [1, 2] and table.hash.tolist() == ["", ""]


@pytest.mark.parametrize("change, words", [
    ({"signer": None}, "empty cells in signer"),
    ({"kind": "forged"}, "genuine or skilled; found forged"),
    ({"path": "a"}, "repeated, the first is a"),
])
def test_bad_tables_are_refused(change, words):
    rows = pd.DataFrame({"path": ["a", "b"], "signer": ["1", "1"], "kind": ["genuine", "genuine"], "index": [1, 2]}).assign(**change)
    with pytest.raises(DatasetLayoutError, match=words):
        SignatureSet("x", rows)
    with pytest.raises(DatasetLayoutError, match="add kind"):
        SignatureSet("x", rows.drop(columns="kind"))


def test_rows_can_be_chosen_but_not_lost():
    signatures = drawn()
    assert signatures.signers == ["0", "1", "2", "3"] and len(signatures) == 24
    assert signatures.subset("2").signers == ["2"] and len(signatures.subset(["1", "3"])) == 12
    assert signatures.select([5, 2]).table.path.tolist() == signatures.table.path.iloc[[5, 2]].tolist()
    assert len(signatures.without(signatures.table.path[:4])) == 20
    for row in (3, signatures.table.iloc[3], signatures.table.path[3], next(signatures.table.iloc[3:].itertuples())):
        assert (signatures.read(row) == signatures.reader(signatures.table.path[3])).all()
    for call, bad in ((signatures.subset, ["9"]), (signatures.without, ["9"]), (signatures.select, np.ones(3, bool))):
        with pytest.raises(ValueError):
            call(bad)
    with pytest.raises(TypeError, match="read takes"):
        signatures.read(1.5)


def test_signers_are_in_natural_order():
    rows = [{"path": s, "signer": s, "kind": "genuine", "index": 1} for s in ("s10", "s9", "s1", "2", "10")]
    assert SignatureSet("x", rows).signers == ["2", "10", "s1", "s9", "s10"]


# ---- ink ----

@pytest.mark.parametrize("input", ["binarised", "masked", "raw"])
def test_ink_is_what_ink_image_makes(input):
    signatures = drawn()
    ink = signatures.ink((30, 50), input)
    expected = [np.rint(255 * ink_image(signatures.read(i), (30, 50), input=input)) for i in range(len(signatures))]
    np.testing.assert_array_equal(ink, expected)
    assert ink.dtype == np.uint8 and not ink.flags.writeable


def test_every_image_is_decoded_once():
    signatures = drawn()
    part = signatures.subset(["1", "2"])
    part.ink((20, 30))
    assert len(signatures.asked) == 12
    whole = signatures.ink((20, 30))
    assert len(signatures.asked) == 24 == len(set(signatures.asked))
    assert signatures.ink((20, 30)) is whole
    np.testing.assert_array_equal(signatures.subset(["2", "1"]).ink((20, 30)), part.ink((20, 30)))
    np.testing.assert_array_equal(signatures.select([7, 3]).ink((20, 30)), whole[[7, 3]])
    assert len(signatures.asked) == 24
    signatures.ink((20, 31))
    assert len(signatures.asked) == 48


def test_no_rows_no_ink():
    assert drawn().select([]).ink((20, 30)).shape == (0, 20, 30)


def test_bad_images_are_all_named(tmp_path):
    write(tmp_path, ["a/genuine/1.png", "a/genuine/2.png"])
    write(tmp_path, ["a/genuine/3.png"], np.full((40, 90), 250, np.uint8))
    (tmp_path / "a/genuine/4.png").write_bytes(b"")
    signatures = read_folder(tmp_path)
    (tmp_path / "a/genuine/2.png").unlink()             # gone since it was listed
    with pytest.raises(UnreadableImage) as caught:
        signatures.ink((20, 30))
    assert isinstance(caught.value, BadImages) and "3 of 4" in str(caught.value)
    assert [os.path.basename(p) for p in caught.value.paths] == ["2.png", "3.png", "4.png"]
    assert [type(e) for _, e in caught.value.failures] == [FileNotFoundError, NoInk, UnreadableImage]
    rest = signatures.without(caught.value.paths)
    assert rest.ink((20, 30)).shape == (1, 20, 30) and "left out" in rest.notes[-1]
    with pytest.raises(BadImages):
        signatures.add_hashes()


def test_many_bad_images_are_summed_up(tmp_path):
    rows = {"path": [str(tmp_path / f"{i}.png") for i in range(9)], "signer": "1", "kind": "genuine", "index": range(9)}
    with pytest.raises(BadImages, match="and 4 more"):
        SignatureSet("gone", rows).ink()


def test_a_wrong_argument_is_not_a_bad_image():
    with pytest.raises(ValueError) as caught:
        drawn().ink((20, 30), input="colour")
    assert not isinstance(caught.value, BadImages)


def test_disk_cache(tmp_path, monkeypatch):
    cache, calls = tmp_path / "cache", []
    monkeypatch.setattr(datasets, "ink_image", lambda *a, **k: calls.append(1) or ink_image(*a, **k))
    folder = write(tmp_path / "set", ["a/genuine/1.png", "a/genuine/2.png"])

    def ink(**options):
        return read_folder(folder).ink((20, 30), cache_dir=cache, **options)

    first = ink()
    assert len(calls) == 2 and (ink() == first).all() and len(calls) == 2           # the second comes from the disk
    ink(input="masked")
    assert len(calls) == 4
    file = folder / "a/genuine/1.png"
    cv2.imwrite(str(file), scribble(77))
    os.utime(file, ns=(1, 1))
    assert (ink() != first).any() and len(calls) == 6                               # a changed file
    for kept in cache.glob("*.npz"):
        kept.write_bytes(kept.read_bytes()[:50])
    assert ink().shape == (2, 20, 30) and len(calls) == 8                           # a broken cache
    assert not list(cache.glob("*.part"))


def test_progress_goes_to_stderr_and_only_when_asked(capfd):
    drawn().ink((20, 30))
    assert capfd.readouterr() == ("", "")
    drawn().ink((20, 30), progress=True)
    captured = capfd.readouterr()
    assert captured.out == "" and "drawn: ink" in captured.err


# ---- fingerprints ----

def test_hashes_and_fingerprint():
    signatures = drawn()
    assert signatures.add_hashes() is signatures and signatures.table.hash.str.len().eq(64).all()
    asked = len(signatures.asked)
    digest = signatures.sha256()
    assert len(signatures.asked) == asked                                           # known hashes are not computed again
    order = np.random.default_rng(0).permutation(len(signatures))
    assert signatures.select(order).sha256() == digest
    assert signatures.select(order[1:]).sha256() != digest
    renamed = signatures.table.assign(path="elsewhere/" + signatures.table.path)
    assert SignatureSet("x", renamed).sha256() == digest
    assert SignatureSet("x", renamed.assign(kind=renamed.kind[::-1].to_numpy())).sha256() != digest


# ---- readers ----

CEDAR = [(kind, f"{kind}_{s}_{n}.png") for kind in ("original", "forgeries") for s in (1, 2, 10) for n in (1, 2)]
CEDAR_FOUND = {(s, kind, n) for s in ("1", "2", "10") for kind in KINDS for n in (1, 2)}
CEDAR_FOLDERS = {
    "usual": lambda kind, name: f"{'full_org' if kind == 'original' else 'full_forg'}/{name}",
    "kaggle": lambda kind, name: f"signatures/{'full_org' if kind == 'original' else 'full_forg'}/{name}",
    "renamed": lambda kind, name: f"{'original' if kind == 'original' else 'forged'}/{name}",
    "flat": lambda kind, name: name,
    "per signer": lambda kind, name: f"{name.split('_')[1]}/{name}",
}


@pytest.mark.parametrize("layout", CEDAR_FOLDERS)
def test_cedar(tmp_path, layout):
    signatures = read_cedar(write(tmp_path, [CEDAR_FOLDERS[layout](*name) for name in CEDAR]))
    assert found(signatures) == CEDAR_FOUND and signatures.notes == [] and signatures.name == "cedar"
    assert signatures.table.signer.tolist() == ["1"] * 4 + ["2"] * 4 + ["10"] * 4
    assert all("original" in row.path if row.kind == "genuine" else "forgeries" in row.path for row in signatures.table.itertuples())


def test_what_systems_scatter_is_ignored_but_images_are_not(tmp_path):
    folder = write(tmp_path, [CEDAR_FOLDERS["usual"](*name) for name in CEDAR])
    for name in ("full_org/Thumbs.db", "full_org/._original_1_1.png", "__MACOSX/full_org/original_1_1.png", ".cache/original_1_1.png", "Readme.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    write(folder, ["full_org/scan of the form.png"])
    signatures = read_cedar(folder)
    assert found(signatures) == CEDAR_FOUND
    assert len(signatures.notes) == 1 and "1 image file(s) left aside" in signatures.notes[0] and "scan of the form.png" in signatures.notes[0]


def test_sigcomp_of_the_competition(tmp_path):
    names = [f"trainingSet/OfflineSignatures/{s}/TrainingSet/Offline {n}" for s in ("Dutch", "Chinese")
             for n in ("Genuine/001_01.PNG", "Genuine/001_02.PNG", "Forgeries/0119001_01.png", "Forgeries/0201001_01.png")]
    names += [f"Testdata_SigComp2011/SigComp11-Offlinetestset/Dutch/{n}" for n in
              ("Reference(646)/049/01_049.png", "Reference(646)/049/02_049.png", "Questioned(1287)/049/13_049.png", "Questioned(1287)/049/03_0114049.PNG")]
    signatures = read_sigcomp2011(write(tmp_path, names))
    assert signatures.counts().loc["dutch-001"].tolist() == [2, 2] and signatures.counts().loc["dutch-049"].tolist() == [3, 1]
    assert signatures.signers == ["chinese-001", "dutch-001", "dutch-049"]
    assert signatures.table.query("signer == 'dutch-001' and kind == 'skilled'").forger.tolist() == ["0119", "0201"]
    assert read_sigcomp2011(tmp_path, script="chinese").signers == ["chinese-001"]
    with pytest.raises(ValueError, match="script is Dutch"):
        read_sigcomp2011(tmp_path, script="german")


def test_sigcomp_of_kaggle_counts_copies_once(tmp_path):
    root = tmp_path / "train" / "sign_data"                  # a "train" above the set means nothing
    names = ["train/068/09_068.png", "train/068/10_068.png", "train/068_forg/03_0113068.PNG", "test/069/01_069.png", "test/069/02_069.png"]
    write(root, names)
    (root / "test/068").mkdir()
    shutil.copy(root / "train/068/09_068.png", root / "test/068/09_068.png")
    write(root, ["test/068/10_068.png"], scribble(99))       # the same name, another image
    signatures = read_sigcomp2011(root)
    assert signatures.signers == ["068", "069"] and signatures.counts().loc["068"].tolist() == [3, 1]
    assert "1 image file(s) left aside" in signatures.notes[0] and "copies" in signatures.notes[1]
    assert len(read_sigcomp2011(root / "test")) == 4


@pytest.mark.parametrize("names", [
    [f"BHSig100_Bengali/1/B-S-1-{k}-0{n}.tif" for k in "GF" for n in (1, 2)] + [f"BHSig160_Hindi/001/H-S-001-{k}-0{n}.tif" for k in "GF" for n in (1, 2)],
    [f"BHSig100_Bengali/{d}/B-S-001-{k}-0{n}.tif" for k, d in (("G", "Genuine"), ("F", "Forged")) for n in (1, 2)]
    + [f"BHSig160_Hindi/{d}/H-S-001-{k}-0{n}.tif" for k, d in (("G", "Genuine"), ("F", "Forged")) for n in (1, 2)],
    [f"{c}-S-001-{k}-0{n}.tif" for c in "BH" for k in "GF" for n in (1, 2)],
])
def test_bhsig(tmp_path, names):
    signatures = read_bhsig260(write(tmp_path, names))
    assert found(signatures) == {(s, k, n) for s in ("B-001", "H-001") for k in KINDS for n in (1, 2)} and not signatures.notes
    assert read_bhsig260(tmp_path, script="Hindi").signers == ["H-001"]
    with pytest.raises(ValueError, match="script is Bengali"):
        read_bhsig260(tmp_path, script="Urdu")


def test_bhsig_believes_the_numbered_folder(tmp_path):
    names = [f"Hindi/{folder}/H-S-124-G-0{n}.tif" for folder in (123, 124) for n in (1, 2)]
    signatures = read_bhsig260(write(tmp_path, names))
    assert signatures.signers == ["H-123", "H-124"] and "2 file(s) lie in another signer's folder" in signatures.notes[0]


def test_utsig(tmp_path):
    names = ["UTSig/Genuine/1/1.tif", "UTSig/Genuine/1/2.tif"]
    names += [f"UTSig/Forgery/{kind}/1/{n}.tif" for kind in ("Simple", "Skilled", "Opposite Hand") for n in (1, 2)]
    signatures = read_utsig(write(tmp_path, names))
    assert signatures.counts().loc["1"].tolist() == [2, 4] and "2 image file(s) left aside" in signatures.notes[0]
    assert signatures.table.variant.value_counts().to_dict() == {"genuine": 2, "simple": 2, "skilled": 2}
    assert len(read_utsig(tmp_path, forgeries=["Skilled"])) == 4
    assert len(read_utsig(tmp_path, forgeries=["Simple", "Skilled", "Opposite Hand"])) == 8
    with pytest.raises(ValueError, match="forgeries are of"):
        read_utsig(tmp_path, forgeries=["Clumsy"])


def test_mcyt_and_gpds(tmp_path):
    mcyt = read_mcyt75(write(tmp_path / "m", [f"{s:04d}/{s:04d}{k}{n:02d}.bmp" for s in (0, 1) for k in "vf" for n in (0, 1)]))
    assert found(mcyt) == {(s, k, n) for s in ("0000", "0001") for k in KINDS for n in (0, 1)}
    gpds = read_gpds(write(tmp_path / "g", [f"{s:03d}/{k}-{s:03d}-{n:02d}.jpg" for s in (1, 4000) for k in ("c", "cf") for n in (1, 2)]))
    assert found(gpds) == {(s, k, n) for s in ("001", "4000") for k in KINDS for n in (1, 2)}


def test_crossmedia(tmp_path):
    short = read_crossmedia(write(tmp_path / "short", [f"{g}/{w}/{n}.png" for g in ("control", "experiment") for w in (1, 10) for n in (1, 2)]))
    assert found(short) == {(f"{g}-{w}", "genuine", n) for g in ("control", "experiment") for w in (1, 10) for n in (1, 2)}
    names = [f"{g}/{v}/1/{n}.png" for g in ("control", "experiment") for v in ("rect", "bin", "skel") for n in (1, 2)]
    authors = read_crossmedia(write(tmp_path / "authors", names))
    assert len(authors) == 4 and authors.table.path.str.contains("rect").all()
    assert read_crossmedia(tmp_path / "authors", version="bin").table.path.str.contains("bin").all()


def test_own_folder(tmp_path):
    names = ["anna/genuine/b.png", "anna/genuine/a.png", "anna/forged/x9.png", "anna/forged/x10.png", "ben/genuine/7.png", "ben/genuine/8.png"]
    signatures = read_folder(write(tmp_path, names))
    assert found(signatures) == {("anna", "genuine", 1), ("anna", "genuine", 2), ("anna", "skilled", 9), ("anna", "skilled", 10),
                                 ("ben", "genuine", 7), ("ben", "genuine", 8)}
    assert signatures.name == tmp_path.name and read_folder(tmp_path, name="mine").name == "mine"


@pytest.mark.parametrize("spoil, words", [
    (lambda root: (root / "carl/genuine").mkdir(parents=True), "no image in .*carl"),
    (lambda root: (root / "anna/forged").mkdir(), "no image in .*forged"),
    (lambda root: write(root, ["anna/1.png"]), "anna.1.png"),
    (lambda root: write(root, ["1.png"]), "found 1.png"),
    (lambda root: write(root, ["anna/genuine/deep/1.png"]), "deep"),
    (lambda root: write(root, ["carl/genuine/1.png"]), "found 1 for signer carl"),
    (lambda root: write(root, ["carl/forged/1.png"]), "found 0 for signer carl"),
])
def test_own_folder_laid_out_wrongly(tmp_path, spoil, words):
    write(tmp_path, ["anna/genuine/1.png", "anna/genuine/2.png"])
    spoil(tmp_path)
    with pytest.raises(DatasetLayoutError, match=words):
        read_folder(tmp_path)


READERS = [read_cedar, read_sigcomp2011, read_bhsig260, read_utsig, read_mcyt75, read_gpds, read_crossmedia, read_folder]


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_no_reader_takes_nothing_for_a_set(tmp_path, reader):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for name, words in (("missing", "no such folder"), ("empty", "no image file"), ("file", "a file at")):
        with pytest.raises(DatasetLayoutError, match=words) as caught:
            reader(tmp_path / name)
        assert caught.value.expected and caught.value.found and caught.value.remedy
    write(tmp_path / "foreign", ["foo bar.png"])
    with pytest.raises(DatasetLayoutError):
        reader(tmp_path / "foreign")


def test_a_signer_with_one_image_is_named(tmp_path):
    write(tmp_path, ["original_1_1.png", "original_1_2.png", "original_7_1.png", "forgeries_8_1.png"])
    with pytest.raises(DatasetLayoutError, match="found 1 for signer 7, 8"):
        read_cedar(tmp_path)
    assert read_cedar(tmp_path, min_genuine=0).signers == ["1", "7", "8"]


def test_two_copies_are_refused(tmp_path):
    with pytest.raises(DatasetLayoutError, match="every signature once.*signer 1, genuine 1"):
        read_cedar(write(tmp_path, ["one/original_1_1.png", "two/original_1_1.png", "two/original_1_2.png"]))


def test_links_are_followed_but_not_in_circles(tmp_path):
    write(tmp_path / "store", [name for _, name in CEDAR])
    (tmp_path / "set").mkdir()
    (tmp_path / "set/full").symlink_to(tmp_path / "store", target_is_directory=True)
    (tmp_path / "store/up").symlink_to(tmp_path / "set", target_is_directory=True)
    assert found(read_cedar(tmp_path / "set")) == CEDAR_FOUND


# ---- CSV ----

def test_csv(tmp_path):
    write(tmp_path / "scans", ["1.png", "2.png", "3.png"])
    listing = tmp_path / "scans" / "list.csv"
    listing.write_text("\ufeffpath,signer,kind,pen\n1.png,007,Genuine,NA\n2.png,007,genuine,\n3.png,007,forged,red\n", encoding="utf-8")
    signatures = read_csv(listing)
    assert found(signatures) == {("007", "genuine", 1), ("007", "genuine", 2), ("007", "skilled", 1)}
    assert signatures.table.pen.tolist() == ["NA", "", "red"] and signatures.name == "list" and signatures.ink((20, 30)).shape == (3, 20, 30)
    moved = tmp_path / "moved.csv"
    moved.write_text("path,signer,kind,index\n1.png,1,genuine,5\n2.png,1,genuine,9\n")
    assert read_csv(moved, root=tmp_path / "scans").table["index"].tolist() == [5, 9]


@pytest.mark.parametrize("text, words", [
    ("path,signer\n1.png,1\n", "no column kind"),
    ("path,signer,kind\n", "no rows"),
    ("", "cannot be parsed"),
    ("path,signer,kind\n1.png,1,genuine\n2.png,,genuine\n", "row 2"),
    ("path,signer,kind\n1.png,1,maybe\n", "maybe.*row 1"),
    ("path,signer,kind,index\n1.png,1,genuine,one\n", "one.*row 1"),
    ("path,signer,kind\n1.png,1,genuine\n9.png,1,genuine\n", "1 of 2 missing.*9.png"),
    ("path,signer,kind\n1.png,1,genuine\n1.png,1,genuine\n", "every path once"),
    ("path,signer,kind\n1.png,1,genuine\n2.png,2,genuine\n", "at least 2 genuine"),
    ("path,signer,kind,index\n1.png,1,genuine,1\n2.png,1,genuine,1\n", "every signature once"),
])
def test_bad_csv(tmp_path, text, words):
    write(tmp_path, ["1.png", "2.png"])
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(DatasetLayoutError, match=words):
        read_csv(tmp_path / "list.csv")
    with pytest.raises(DatasetLayoutError, match="no such file"):
        read_csv(tmp_path / "other.csv")


# ---- where data lie ----

def test_data_directory_argument_environment_default(tmp_path, monkeypatch):
    for name in ("a", "b", "data"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIGNVER_DATA", str(tmp_path / "b"))
    assert data_directory(tmp_path / "a") == tmp_path / "a" and data_directory() == tmp_path / "b"
    monkeypatch.setenv("SIGNVER_DATA", str(tmp_path / "c"))
    with pytest.raises(DatasetLayoutError, match="SIGNVER_DATA"):
        data_directory()
    monkeypatch.delenv("SIGNVER_DATA")
    assert data_directory().resolve() == tmp_path / "data"
    (tmp_path / "file").write_text("x")
    with pytest.raises(DatasetLayoutError, match="a file"):
        data_directory(tmp_path / "file", must_exist=False)


def test_list_and_open(tmp_path):
    assert not list_datasets(tmp_path / "nowhere").present.any()
    write(tmp_path / "CEDAR", [CEDAR_FOLDERS["kaggle"](*name) for name in CEDAR])
    table = list_datasets(tmp_path)
    assert table.index[table.present].tolist() == ["cedar"] and table.folder["cedar"] == "CEDAR"
    assert set(table.index) == {known.name for known in KNOWN_SETS} and table.source.str.startswith("https://").sum() >= 7
    for folder in (tmp_path, tmp_path / "CEDAR", tmp_path / "CEDAR/signatures"):
        assert found(open_dataset("cedar", folder)) == CEDAR_FOUND
    with pytest.raises(DatasetLayoutError, match="there: CEDAR; signver data download icdar2011"):
        open_dataset("icdar2011", tmp_path)
    with pytest.raises(ValueError, match="one of cedar"):
        open_dataset("cedra", tmp_path)
    with pytest.raises(ValueError, match="set of pages"):
        open_dataset("signverod", tmp_path)


def test_a_neighbour_is_not_taken_for_the_set(tmp_path):
    write(tmp_path / "cedar_native", [CEDAR_FOLDERS["usual"](*name) for name in CEDAR])
    with pytest.raises(DatasetLayoutError):
        open_dataset("cedar", tmp_path)


# ---- download ----

@pytest.fixture
def kaggle(monkeypatch, tmp_path):
    """A kagglehub whose download does what `outcome` says; and a CEDAR of 12 images that counts as the whole."""
    whole = write(tmp_path / "kagglehub", [CEDAR_FOLDERS["kaggle"](*name) for name in CEDAR])
    state = SimpleNamespace(outcome=whole, calls=[], data=tmp_path / "data")

    def dataset_download(handle, force_download=False):
        state.calls.append((handle, force_download))
        if isinstance(state.outcome, BaseException):
            raise state.outcome
        return str(state.outcome)

    monkeypatch.setitem(sys.modules, "kagglehub", SimpleNamespace(dataset_download=dataset_download))
    small = [known if known.name != "cedar" else datasets.KnownSet(**{**vars(known), "images": 12}) for known in KNOWN_SETS]
    monkeypatch.setattr(datasets, "KNOWN_SETS", tuple(small))
    return state


def test_download(kaggle):
    assert download("cedar", kaggle.data) == kaggle.data / "cedar"
    assert found(open_dataset("cedar", kaggle.data)) == CEDAR_FOUND
    assert os.listdir(kaggle.data) == ["cedar"] and kaggle.calls == [("shreelakshmigp/cedardataset", False)]
    download("cedar", kaggle.data)
    assert len(kaggle.calls) == 1                              # what is there and whole is kept
    download("cedar", kaggle.data, force=True)
    assert kaggle.calls[1:] == [("shreelakshmigp/cedardataset", True)] and os.listdir(kaggle.data) == ["cedar"]


def http_error(status):
    error = OSError(f"{status} Client Error")
    error.response = SimpleNamespace(status_code=status)
    return error


class UnauthenticatedError(Exception):
    """Named as kagglehub's."""


@pytest.mark.parametrize("outcome, words", [
    (ConnectionError("no route"), "cannot be reached.*network"),
    (TimeoutError(), "cannot be reached"),
    (http_error(401), "wants an account.*token"),
    (http_error(403), "wants an account.*terms"),
    (UnauthenticatedError(), "wants an account"),
    (http_error(404), "no longer has"),
    (http_error(500), "failed.*500"),
    (RuntimeError("surprise"), "failed.*surprise"),
])
def test_download_names_the_cause(kaggle, outcome, words):
    kaggle.outcome = outcome
    with pytest.raises(DownloadError, match=words) as caught:
        download("cedar", kaggle.data)
    assert "by hand" in str(caught.value) and caught.value.__cause__ is outcome and not kaggle.data.exists()


def test_download_without_kagglehub(kaggle, monkeypatch):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(DownloadError, match="pip install kagglehub"):
        download("cedar", kaggle.data)


def test_the_real_kagglehub_offline(tmp_path, monkeypatch):
    pytest.importorskip("kagglehub")
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    for variable in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(DownloadError, match="cannot be reached"):
        download("cedar", tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_partial_download_is_no_data_set(kaggle):
    (kaggle.outcome / "signatures/full_forg/forgeries_10_2.png").unlink()
    with pytest.raises(DownloadError, match="12 images, 11 are here.*force=True"):
        download("cedar", kaggle.data)
    assert os.listdir(kaggle.data) == [] and not list_datasets(kaggle.data).present.any()
    shutil.rmtree(kaggle.outcome / "signatures")
    with pytest.raises(DownloadError, match="no image file.*force=True"):
        download("cedar", kaggle.data)
    assert os.listdir(kaggle.data) == []


@pytest.mark.parametrize("stop", ["copytree", "_verified"])
def test_an_interrupted_download_leaves_nothing(kaggle, monkeypatch, stop):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil if stop == "copytree" else datasets, stop, interrupted)
        with pytest.raises(KeyboardInterrupt):
            download("cedar", kaggle.data)
    assert os.listdir(kaggle.data) == []


def test_a_failed_renewal_keeps_the_old(kaggle, monkeypatch):
    download("cedar", kaggle.data)
    replace, moves = os.replace, []

    def fails_second(source, target):
        moves.append(source)
        if len(moves) == 2:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", fails_second)
    with pytest.raises(KeyboardInterrupt):
        download("cedar", kaggle.data, force=True)
    monkeypatch.undo()
    assert found(open_dataset("cedar", kaggle.data)) == CEDAR_FOUND and os.listdir(kaggle.data) == ["cedar"]


def test_a_damaged_set_is_not_kept_silently(kaggle):
    download("cedar", kaggle.data)
    (kaggle.data / "cedar/signatures/full_forg/forgeries_1_1.png").unlink()
    with pytest.raises(DownloadError, match="11 are here"):
        download("cedar", kaggle.data)
    (kaggle.data / "cedar/signatures/full_org/original_1_1.png").unlink()
    with pytest.raises(DownloadError, match="as a whole .*signer 1.*force=True"):
        download("cedar", kaggle.data)


def test_pages_can_be_downloaded_and_others_not(kaggle):
    kaggle.outcome = write(kaggle.data.parent / "pages", ["images/1.png"])
    assert (download("signverod", kaggle.data) / "images/1.png").exists()
    for name in ("mcyt75", "gpds", "crossmedia"):
        with pytest.raises(ValueError, match="cannot be downloaded by the kit"):
            download(name, kaggle.data)


# ---- check ----

@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=60).filter(lambda rows: 0 < sum(g for _, g in rows) < len(rows)))
def test_auc_agrees_with_scikit_learn(rows):
    values, genuine = np.array([v for v, _ in rows]), np.array([g for _, g in rows])
    assert datasets._auc(values, genuine) == pytest.approx(roc_auc_score(~genuine, values))


def leaky(tmp_path, image):
    """Six signers, five and five; image(kind, rng) -> pixels; returns the report."""
    rng = np.random.default_rng(3)
    for s in range(6):
        for kind in ("genuine", "forged"):
            for n in range(1, 6):
                write(tmp_path, [f"{s}/{kind}/{n}.png"], image(kind, rng))
    return check_dataset(read_folder(tmp_path))


@pytest.mark.parametrize("name, image", [
    ("background grey", lambda kind, rng: scribble(rng.integers(1e9), paper=int(rng.integers(246, 255)) - 10 * (kind == "forged"))),
    ("width", lambda kind, rng: np.pad(scribble(rng.integers(1e9)), ((0, 0), (0, 9 if kind == "forged" else 0)), constant_values=250)),
    ("ink grey", lambda kind, rng: scribble(rng.integers(1e9), ink=60 if kind == "forged" else 20)),
    ("stroke width", lambda kind, rng: scribble(rng.integers(1e9), thick=5 if kind == "forged" else 2)),
    ("mode", lambda kind, rng: cv2.cvtColor(scribble(rng.integers(1e9)), cv2.COLOR_GRAY2BGR) if kind == "forged" else scribble(rng.integers(1e9))),
])
def test_a_planted_leak_is_found(tmp_path, name, image):
    report = leaky(tmp_path, image)
    assert report.auc(name) == pytest.approx(1.0) and report.leaks.loc[name, "auc_within"] == pytest.approx(1.0)
    assert any(line.startswith(name) and PROPERTIES[name] in line for line in report.advice)
    assert name in str(report) and name in report._repr_html_()


def test_no_leak_no_alarm(tmp_path):
    report = leaky(tmp_path, lambda kind, rng: scribble(rng.integers(1e9), paper=int(rng.integers(240, 255))))
    assert (report.leaks.verdict == "").all() and report.advice == [] and "nothing to object to" in str(report)


def test_a_leak_within_signers_is_found(tmp_path):
    # every signer has paper of his own, and each forger's is four levels darker: pooled it hides, within signers it is plain
    for s in range(8):
        for kind in ("genuine", "forged"):
            for n in range(6):
                write(tmp_path, [f"{s}/{kind}/{n}.png"], scribble(s * 100 + n, paper=180 + 9 * s - 4 * (kind == "forged")))
    leaks = check_dataset(read_folder(tmp_path)).leaks
    assert leaks.loc["background grey", "auc"] < 0.65 and leaks.loc["background grey", "auc_within"] == 1.0
    assert leaks.loc["background grey", "verdict"] == "gives it away"


def test_a_dozen_images_prove_nothing():
    table = pd.DataFrame({"signer": "1", "kind": ["genuine"] * 3 + ["skilled"] * 3})
    facts = pd.DataFrame({name: [1.0, 2, 4, 3, 5, 6] for name in PROPERTIES})
    leaks = datasets._leaks(facts, table)
    assert (leaks.auc > 0.85).all() and (leaks.verdict == "").all()


def test_check_lists_what_is_unusable_and_double(tmp_path):
    write(tmp_path, [f"{s}/{kind}/{n}.png" for s in "ab" for kind in ("genuine", "forged") for n in (1, 2, 3)])
    shutil.copy(tmp_path / "a/genuine/1.png", tmp_path / "a/genuine/9.png")
    cv2.imwrite(str(tmp_path / "b/forged/9.bmp"), cv2.imread(str(tmp_path / "a/genuine/2.png"), 0))     # another signer, kind and file format
    (tmp_path / "b/genuine/8.png").write_bytes(b"broken")
    write(tmp_path, ["b/genuine/9.png"], np.full((40, 90), 255, np.uint8))
    signatures = read_folder(tmp_path)
    report = check_dataset(signatures)
    assert sorted(os.path.basename(p) for p, _ in report.unreadable) == ["8.png", "9.png"]
    pairs = {frozenset(g[["signer", "kind", "index"]].itertuples(index=False, name=None)) for _, g in report.duplicates.groupby("group")}
    assert pairs == {frozenset({("a", "genuine", 1), ("a", "genuine", 9)}), frozenset({("a", "genuine", 2), ("b", "skilled", 9)})}
    text = str(report)
    assert "a/genuine/2 = b/skilled/9  <- two labels" in text and "unusable images: 2" in text and "duplicates: 2" in text
    assert "a/genuine/1 = a/genuine/9\n" in text
    assert report.counts.loc["b"].tolist() == [5, 4] and "8.png" in report._repr_html_()
    # the advice, taken
    clean = signatures.without([p for p, _ in report.unreadable]).without(report.duplicates[report.duplicates.duplicated("group")].path)
    again = check_dataset(clean)
    assert not again.unreadable and not len(again.duplicates) and "left out" in str(again)


def test_check_without_forgeries():
    report = check_dataset(drawn(skilled=0))
    assert not len(report.leaks) and np.isnan(report.auc("dpi")) and "no skilled forgeries" in report.advice[0]
    with pytest.raises(ValueError, match="a property is one of"):
        report.auc("colour")


def test_check_of_a_set_in_memory_is_silent(recwarn):
    report = check_dataset(drawn())
    assert report.auc("file size") == report.auc("mode") == 0.5 and not recwarn.list
    assert report._repr_html_().count("<table") == 1


def test_html_is_escaped():
    assert "<script>" not in check_dataset(drawn(name="<script>"))._repr_html_()


# ---- splits ----

names = st.lists(st.text(min_size=1, max_size=6), min_size=2, max_size=40, unique=True)


@given(names, st.integers(0, 5), st.data())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_folds_are_disjoint_covering_balanced(signers, seed, data):
    k = data.draw(st.integers(2, len(signers)))
    validation = data.draw(st.one_of(st.just(0), st.just(0.0), st.floats(0.01, 0.3)))
    most = len(signers) - -(-len(signers) // k)                # signers outside the largest fold
    if validation and max(1, round(validation * most)) >= most or most == 0:
        with pytest.raises(ValueError):
            signer_folds(signers, k, seed, validation)
        return
    folds = signer_folds(signers, k, seed, validation)
    assert sorted(s for fold in folds for s in fold.test) == sorted(signers)       # everybody once
    sizes = [len(fold.test) for fold in folds]
    assert len(folds) == k and max(sizes) - min(sizes) <= 1
    for fold in folds:
        parts = [set(fold.train), set(fold.validation), set(fold.test)]
        assert set.union(*parts) == set(signers) and sum(map(len, parts)) == len(signers) and fold.train
        assert bool(fold.validation) == bool(validation)
    rows = data.draw(st.permutations(signers + signers[:3]))
    assert signer_folds(rows, k, seed, validation) == folds                        # whatever the order and number of rows


@given(names, st.integers(0, 5), st.lists(st.integers(0, 10), min_size=3, max_size=3).filter(any), st.data())
def test_splits_are_disjoint_covering_balanced(signers, seed, weights, data):
    fractions = [w / sum(weights) for w in weights]
    try:
        split = split_signers(signers, fractions, seed)
    except ValueError as error:
        assert "too few" in str(error) and any(0 < f * len(signers) < 1 for f in fractions)
        return
    parts = [split[part] for part in ("train", "validation", "test")]
    assert sorted(sum(parts, [])) == sorted(signers)
    assert all(abs(len(part) - f * len(signers)) < 1 for part, f in zip(parts, fractions))
    assert split == split_signers(data.draw(st.permutations(signers)), [len(part) for part in parts], seed)


def test_splits_do_not_change_from_release_to_release():
    signers = [str(i) for i in range(1, 11)]
    expected = sorted(signers, key=lambda s: hashlib.sha256(f"42:{s}".encode()).digest())
    split = split_signers(signers, (6, 2, 2))
    assert set(split["train"]) == set(expected[:6]) and set(split["test"]) == set(expected[8:])
    assert split_signers(signers, (6, 2, 2), seed=1) != split
    assert split_signers(drawn(10), (5, 2, 3)) == split_signers(drawn(10).table.signer, (5, 2, 3))


def test_validation_signers_change_with_the_fold():
    folds = signer_folds([str(i) for i in range(50)], k=5, validation=8)
    assert all(len(fold.validation) == 8 and len(fold.train) == 32 for fold in folds)
    assert len({fold.validation for fold in folds}) == 5


@pytest.mark.parametrize("call, words", [
    (lambda: signer_folds("abc"[:1], 2), "2 <= k <= the number of signers, got k=2 for 1"),
    (lambda: signer_folds(list("abc"), 4), "got k=4 for 3 signers"),
    (lambda: signer_folds(list("abc"), 1), "got k=1"),
    (lambda: signer_folds(list("abc"), 2.5), "got k=2.5"),
    (lambda: signer_folds(list("abc"), 3, validation=2), "leave a signer to train on"),
    (lambda: signer_folds(list("abc"), 3, validation=-1), "leave a signer to train on"),
    (lambda: split_signers(list("abc"), (0.5, 0.5)), "three sizes"),
    (lambda: split_signers(list("abc"), (1.2, -0.2, 0.0)), "none negative"),
    (lambda: split_signers(list("abc"), (0.5, 0.2, 0.2)), "add up to 0.9"),
    (lambda: split_signers(list("abc"), (1, 1, 2)), "the 3 signers"),
    (lambda: split_signers(list("abc"), (0.8, 0.1, 0.1)), "too few"),
    (lambda: Split(["a"], ["b"], ["a"]), "'a' is in train and in test"),
])
def test_impossible_splits_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# ---- real data ----

def test_cedar_gives_its_labels_away(data_dir):
    cedar = open_dataset("cedar", data_dir)
    assert repr(cedar) == "SignatureSet('cedar': 55 signers, 1320 genuine, 1320 skilled)" and cedar.notes == []
    assert (cedar.counts() == 24).all().all()
    report = check_dataset(cedar.subset(["2", "7", "14", "21", "29", "33", "39", "48", "55"]))       # 29, 39 and 55 are RGBA
    assert f"{report.auc('background grey'):.3f}" == "1.000" and report.auc("dpi") == 1.0 and report.auc("mode") > 0.9
    assert report.leaks.loc[["background grey", "dpi"], "verdict"].eq("gives it away").all()
    assert report.auc("ink share") < 0.65 and not report.unreadable and not len(report.duplicates)


def test_cedar_at_full_resolution(data_dir):
    assert read_cedar(data_dir / "cedar_native").counts().to_dict() == {"genuine": {"2": 24, "29": 24}, "skilled": {"2": 24, "29": 24}}


def test_crossmedia_duplicate(data_dir):
    crossmedia = open_dataset("crossmedia", data_dir)
    assert len(crossmedia) == 4218 and len(crossmedia.signers) == 111 and not crossmedia.notes
    report = check_dataset(crossmedia.subset(["experiment-64", "experiment-65", "control-1"]))
    assert report.duplicates[["signer", "index"]].values.tolist() == [["experiment-64", 36], ["experiment-64", 37]]
    assert "experiment-64/genuine/36 = experiment-64/genuine/37" in str(report)


def test_real_sets_are_listed(data_dir):
    present = list_datasets(data_dir).present
    assert present["cedar"] and present["crossmedia"] and not present["utsig"]


def test_crossmedia_knows_what_was_written(tmp_path):
    from PIL import Image

    for writer in (1, 2):
        for n in (1, 2, 21, 40):
            file = tmp_path / "experiment" / str(writer) / f"{n}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (20, 10), 255).save(file)
    table = read_crossmedia(tmp_path).table
    assert table.identity.tolist() == [f"experiment-{w}/{t}" for w in (1, 2) for t in (0, 1, 0, 19)]
    assert table.text.tolist() == [0, 1, 0, 19] * 2 and table.groupby("identity").signer.nunique().max() == 1
