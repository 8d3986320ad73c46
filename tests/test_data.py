"""Sources: against independent readings of the same files, and against damage."""

import gzip
import hashlib
import io
import tarfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedsim.data import benchmarks, images, table
from fedsim.data.dataset import Dataset, array_digest
from fedsim.data.pool import draw_pool
from fedsim.data.request import Request
from fedsim.data.sources import OWN_FILE, SOURCES, get, load_dataset, status
from fedsim.data.store import PublishedFile, data_folder, get_published, read_published, read_url, write_atomically
from fedsim.errors import RunError, ScenarioError
from fedsim.scenario import Data, Partition

PRESENT = {row.name: row.present for row in status()}


def needs(name: str) -> pytest.MarkDecorator:
    """Skip where the files of a source are not in the data folder."""
    return pytest.mark.skipif(not PRESENT[name], reason=f"{name} is not in the data folder {data_folder()}")


@cache
def load(name: str, **options: int) -> Dataset:
    """Return all records of a source."""
    return load_dataset(Data(source=name, candidates=10, options=dict(options)))


def members(archive: Path, contents: dict[str, bytes]) -> None:
    """Write a gzipped tar."""
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs(name)) for name in SOURCES if name not in OWN_FILE])
def test_every_source_loads_as_declared(name: str) -> None:
    source, records = SOURCES[name], load(name)
    assert records.synthetic == source.synthetic
    assert (records.features.ndim == 4) == (source.kind == "image")
    assert records.features.ndim == 4 or len(records.feature_names) == records.features.shape[1]
    few = np.arange(50, dtype=np.int64)
    x = records.encode(records.features[few], np.arange(0))
    assert x.dtype == np.float32
    assert x.min() >= -0.05  # published ranges are rounded, so a value may lie a little outside
    assert x.max() <= 1.05
    # A fixed encoding treats a record alike whoever stands beside it, and whoever is public.
    alone = records.encode(records.features[few[:1]], np.arange(1))
    assert np.array_equal(alone, x[:1])
    assert not records.features.flags.writeable
    assert records.digest == array_digest(records.features, records.y, columns=records.columns)


def test_digest_depends_on_every_value_shape_and_type() -> None:
    base = np.arange(6, dtype=np.int64)
    changed = base.copy()
    changed[5] = 9
    arrays: list[NDArray[Any]] = [base, changed, base.reshape(2, 3), base.astype(np.int32)]
    assert len({array_digest(array) for array in arrays}) == 4
    assert array_digest(base.astype(">i8")) == array_digest(base)


def test_digest_depends_on_every_column_and_its_name() -> None:
    x = np.zeros((2, 1))
    columns: list[dict[str, NDArray[Any]]] = [
        {},
        {"sex": np.asarray(["f", "m"])},
        {"sex": np.asarray(["f", "f"])},
        {"sex": np.asarray(["f", "m"], dtype=object)},
        {"sex": np.asarray(["f", "f"], dtype=object)},
        {"sex": np.asarray([1, 2])},
        {"site": np.asarray(["f", "m"])},
        {"sex": np.asarray(["f", "m"]), "site": np.asarray(["a", "b"])},
        {"sex": np.asarray(["a", "b"]), "site": np.asarray(["f", "m"])},
    ]
    assert len({array_digest(x, columns=each) for each in columns}) == len(columns)
    both = columns[-1]
    assert array_digest(x, columns=dict(reversed(both.items()))) == array_digest(x, columns=both)
    # Equal values are equal wherever they lie in memory, and on whatever machine.
    word = "".join(["hos", "pital"])
    first, second = (np.asarray([word, other], dtype=object) for other in ("".join([word]), word[:3] + word[3:]))
    assert array_digest(columns={"a": first}) == array_digest(columns={"a": second})
    assert array_digest(columns={"a": np.asarray(["f"], ">U3")}) == array_digest(
        columns={"a": np.asarray(["f"], "<U3")}
    )


def test_files_that_differ_in_a_column_alone_have_different_digests(tmp_path: Path) -> None:
    x, y = np.arange(6.0).reshape(3, 2), np.asarray([0, 1, 0])
    digests = set()
    for sexes in (["f", "m", "f"], ["f", "m", "m"]):
        np.savez(tmp_path / "own.npz", x=x, y=y, sex=np.asarray(sexes))
        data = Data(source="npz", path="own.npz", candidates=10, columns=("sex",))
        digests.add(load_dataset(data, tmp_path).digest)
    assert len(digests) == 2


def test_purchase_like_is_what_it_says() -> None:
    records = load("purchase_like", classes=4, rows=4000)
    assert "Synthetic" in records.notes[0]
    again = load_dataset(Data(source="purchase_like", candidates=10, options={"classes": 4, "rows": 4000}))
    assert records.digest == again.digest
    assert records.digest != load("purchase_like", classes=4, rows=4000, seed=1).digest
    # Within a class each bit is its prototype's with probability 0.6; means of about 1,000 draws stay within 0.1
    # (6 deviations, and the seed is fixed).
    for label in range(4):
        mean = records.features[records.y == label].mean(axis=0)
        assert np.minimum(abs(mean - 0.4), abs(mean - 0.6)).max() < 0.1


@needs("location30")
def test_location30_agrees_with_another_reading() -> None:
    records = load("location30")
    raw = read_published(benchmarks.LOCATION30_FILES[0], data_folder() / "location30")["bangkok"]
    oracle = np.genfromtxt(io.StringIO(raw.decode().replace('"', "")), delimiter=",", max_rows=300)
    assert np.array_equal(records.features[:300], oracle[:, 1:])
    assert np.array_equal(records.y[:300], oracle[:, 0] - 1)
    assert records.features.shape == (5010, 446)


@needs("adult")
def test_adult_has_the_published_counts() -> None:
    records = load("adult")
    # adult.names: 45,222 records have no unknown value; 23.93 % of all and 24.78 % of those earn more than 50,000.
    complete = records.columns["occupation"] != "?"
    complete &= records.columns["native-country"] != "?"
    workclass = [name.startswith("workclass=") for name in records.feature_names]
    complete &= records.features[:, workclass].sum(axis=1) == 1
    first = np.arange(len(records.y)) < 32_561
    assert (complete & first).sum() == 30_162
    assert (complete & ~first).sum() == 15_060
    assert round(100 * records.y.mean(), 2) == 23.93
    assert round(100 * records.y[complete].mean(), 2) == 24.78
    female = records.features[:, records.feature_names.index("sex=Female")]
    assert np.array_equal(female == 1, records.columns["sex"] == "Female")
    age = records.features[:, records.feature_names.index("age")]
    assert age * 73 + 17 == pytest.approx(records.columns["age"], abs=1e-4)


@needs("diabetes130")
def test_diabetes130_has_one_stay_a_patient() -> None:
    binary, three = load("diabetes130"), load("diabetes130", classes=3)
    assert len(binary.y) == 71_518  # the number of patients that its publisher gives
    assert np.array_equal(binary.y == 1, three.y > 0)
    assert three.class_names[2] == "within 30 days"
    assert np.bincount(three.y).argmin() == 2
    # 46,902 stays end in readmission and 30,248 stays have a later one: last stays would leave about the difference.
    assert binary.y.sum() > 1.2 * (46_902 - 30_248)
    blocks = [name.startswith("diag_1=") for name in binary.feature_names]
    # 11 first diagnoses of these stays are missing; all others fall into one group.
    assert (binary.features[:, blocks].sum(axis=1) == 0).sum() < 30


@needs("heart_disease")
def test_heart_disease_comes_from_four_hospitals() -> None:
    records = load("heart_disease")
    hospitals, counts = np.unique(records.columns["hospital"], return_counts=True)
    assert dict(zip(hospitals.tolist(), counts.tolist(), strict=True)) == {
        "cleveland": 303, "hungarian": 294, "switzerland": 123, "va": 200,
    }  # fmt: skip
    ill = {name: int(records.y[records.columns["hospital"] == name].sum()) for name in hospitals}
    assert ill == {
        "cleveland": 139,
        "hungarian": 106,
        "switzerland": 115,
        "va": 149,
    }  # heart-disease.names, class distribution
    # Switzerland measured no cholesterol at all: its zeros are missing values.
    missing = records.features[:, records.feature_names.index("chol missing")]
    assert missing[records.columns["hospital"] == "switzerland"].all()


@needs("tinyshakespeare")
def test_tinyshakespeare_windows_are_in_the_play() -> None:
    records = load("tinyshakespeare", rows=200)
    play = (data_folder() / "tinyshakespeare" / "input.txt").read_text()
    for row in range(0, len(records.y), 20):
        window = "".join(records.class_names[code] for code in records.features[row])
        assert window + records.class_names[records.y[row]] in play
        assert f"\n{records.columns['speaker'][row]}:\n" in "\n" + play
    x = records.encode(records.features, np.arange(0))
    assert np.array_equal(x.reshape(-1, 16, 65).argmax(axis=2), records.features)
    assert (x.sum(axis=1) == 16).all()


@needs("fashion_mnist")
def test_fashion_mnist_holds_both_files() -> None:
    records = load("fashion_mnist")
    assert np.bincount(records.y).tolist() == [7000] * 10
    assert np.bincount(records.y[60_000:]).tolist() == [1000] * 10


def test_cifar_binary_records_are_label_then_planes() -> None:
    record = bytes([3, 7]) + bytes([10] * 1024 + [20] * 1024 + [30] * 1024)
    pictures, labels = images.cifar_records(record * 2, label_bytes=2)
    assert pictures.shape == (2, 3, 32, 32)
    assert labels.tolist() == [7, 7]
    assert [int(plane.mean()) for plane in pictures[0]] == [10, 20, 30]
    assert images.cifar_records(record[1:], label_bytes=1)[1].tolist() == [7]
    with pytest.raises(ScenarioError, match="expected records of 3074 bytes, found 3073"):
        images.cifar_records(record[:-1], label_bytes=2)


def test_cifar_archives_must_have_their_published_hash(tmp_path: Path) -> None:
    members(tmp_path / "cifar-10-binary.tar.gz", dict.fromkeys(images.CIFAR10_MEMBERS, b""))
    with pytest.raises(ScenarioError, match="expected c32a1d4ab5d03f1284b67883e8d87530, found"):
        images.cifar10(Request(Data(source="cifar10", candidates=10), tmp_path, tmp_path))


def test_idx_is_read_as_published() -> None:
    raw = b"\0\0\x08\x02" + (2).to_bytes(4, "big") + (3).to_bytes(4, "big") + bytes(range(6))
    assert images.idx_array(raw, "file").tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ScenarioError, match=r"expected 6 values of shape \(2, 3\), found 5"):
        images.idx_array(raw[:-1], "file")
    with pytest.raises(ScenarioError, match="expected an IDX file"):
        images.idx_array(b"GIF8", "file")


def test_purchase_and_texas_formats(tmp_path: Path) -> None:
    """Tiny files in the published layouts; the sets themselves have never been read by these tests."""
    members(tmp_path / "dataset_purchase.tgz", {"dataset_purchase": b"100,0,1,1\n1,1,0,0\n"})
    records = benchmarks.purchase100(Request(Data(source="purchase100", candidates=10), tmp_path, tmp_path))
    assert records.y.tolist() == [99, 0]
    assert records.features.tolist() == [[0, 1, 1], [1, 0, 0]]
    members(tmp_path / "dataset_texas.tgz", {"texas/100/feats": b"1,0\n0,0\n1,1\n", "texas/100/labels": b"2\n100\n1\n"})
    records = benchmarks.texas100(Request(Data(source="texas100", candidates=10), tmp_path, tmp_path))
    assert records.y.tolist() == [1, 99, 0]
    assert records.features.tolist() == [[1, 0], [0, 0], [1, 1]]


@pytest.mark.parametrize("raw", [b"0,1\n0,1,1\n", b"0,1\n0,2\n", b"0;1\n1;1\n", b"\n"])
def test_binary_tables_hold_bits_and_nothing_else(raw: bytes) -> None:
    with pytest.raises(ScenarioError, match="table"):
        benchmarks.binary_table(raw, "file")


@pytest.mark.parametrize("raw", [b"0,1\n1,1\n", b"0,1\n1,1", b"0,1\r\n1,1\r\n"])
def test_binary_tables_may_end_their_lines_as_they_like(raw: bytes) -> None:
    assert benchmarks.binary_table(raw, "file").tolist() == [[0, 1], [1, 1]]


def test_code_book_encoding() -> None:
    columns = {"sex": np.asarray(["f", "m", "?"]), "income": np.asarray(["0", "?", "10"])}
    book = (table.Category("sex", ("m", "f")), table.Number("income", 5, 25, can_miss=True))
    encoded = table.encode_table(columns, book)
    assert encoded.names == ("sex=m", "sex=f", "income", "income missing")
    assert encoded.x.tolist() == [[0, 1, -0.25, 0], [1, 0, 0, 1], [0, 0, 0.25, 0]]
    with pytest.raises(ScenarioError, match="column sex: 'f' is not one of m"):
        table.encode_table(columns, (table.Category("sex", ("m",)),))
    with pytest.raises(ScenarioError, match="column income: row 2 has no value"):
        table.encode_table(columns, (table.Number("income", 5, 25),))


CONTENT = b"published content\n" * 100
FILE = PublishedFile("set.txt.gz", ("https://first.example/set.txt", "https://second.example/set.txt"), sha256="")


def published(content: bytes = CONTENT) -> PublishedFile:
    """Return the row of a file that holds the content."""
    return PublishedFile(FILE.name, FILE.urls, sha256=hashlib.sha256(content).hexdigest())


def test_a_file_is_read_however_it_was_packed(tmp_path: Path) -> None:
    for level in (1, 9):
        (tmp_path / FILE.name).write_bytes(gzip.compress(CONTENT, level))
        assert read_published(published(), tmp_path) == {FILE.name: CONTENT}


@pytest.mark.parametrize("damage", [lambda raw: raw[:-20], lambda raw: raw[:40], lambda _: b"", lambda raw: b"x" + raw])
def test_a_damaged_file_is_refused_with_its_hashes(tmp_path: Path, damage: Any) -> None:
    (tmp_path / FILE.name).write_bytes(damage(gzip.compress(CONTENT)))
    with pytest.raises(ScenarioError) as caught:
        read_published(published(), tmp_path)
    message = str(caught.value)
    assert FILE.name in message
    assert published().sha256 in message
    assert "found" in message
    assert f"fedsim data get {tmp_path.name}" in message


def test_a_tampered_file_is_refused_with_its_hashes(tmp_path: Path) -> None:
    tampered = CONTENT.replace(b"p", b"q")
    (tmp_path / FILE.name).write_bytes(gzip.compress(tampered))
    with pytest.raises(ScenarioError, match=f"expected {published().sha256}, found {published(tampered).sha256}"):
        read_published(published(), tmp_path)


def test_a_missing_file_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDSIM_DATA", str(tmp_path))
    with pytest.raises(ScenarioError) as caught:
        load_dataset(Data(source="adult", candidates=10))
    for part in ("adult.data.gz is missing", str(tmp_path / "adult"), "fedsim data get adult", "FEDSIM_DATA"):
        assert part in str(caught.value)


def test_archives_are_read_by_exact_name_and_never_unpacked(tmp_path: Path) -> None:
    members(tmp_path / "set.tgz", {"../evil": b"bad", "good": CONTENT})
    row = PublishedFile("set.tgz", (), members=(("good", published().sha256),))
    assert read_published(row, tmp_path) == {"good": CONTENT}
    assert [path.name for path in tmp_path.iterdir()] == ["set.tgz"]
    with pytest.raises(ScenarioError, match="expected an archive with absent"):
        read_published(PublishedFile("set.tgz", (), members=(("absent", ""),)), tmp_path)


def test_download_tries_the_next_address_and_keeps_only_verified_bytes(tmp_path: Path) -> None:
    def answers(url: str) -> bytes:
        return b"<html>moved</html>" if "first" in url else CONTENT

    get_published(published(), tmp_path / "set", answers)
    assert read_published(published(), tmp_path / "set") == {FILE.name: CONTENT}
    assert [path.name for path in (tmp_path / "set").iterdir()] == [FILE.name]

    def offline(url: str) -> bytes:
        raise OSError(f"no network to {url}")

    with pytest.raises(RunError, match=r"first\.example.*no network.*second\.example"):
        get_published(published(), tmp_path / "other", offline)
    assert not (tmp_path / "other").exists()


@needs("heart_disease")
def test_get_fetches_what_is_missing(tmp_path: Path) -> None:
    """The published addresses are replaced by files of the data folder: no test goes to the network."""
    asked: list[str] = []

    def local(url: str) -> bytes:
        asked.append(url)
        return read_url((data_folder() / "heart_disease" / url.rsplit("/", 1)[1]).resolve().as_uri())

    place = get("heart_disease", tmp_path, local)
    assert {row.name: row.present for row in status(tmp_path)}["heart_disease"]
    assert len(asked) == len(list(place.iterdir())) == 4
    (place / "processed.va.data").unlink()
    get("heart_disease", tmp_path, local)
    assert len(asked) == 5
    (place / "processed.va.data").write_text("63,1,4\n")
    with pytest.raises(ScenarioError, match=r"processed\.va\.data: SHA-256"):
        get("heart_disease", tmp_path, local)


def test_get_has_nothing_to_do_for_bundled_sets(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="comes with scikit-learn"):
        get("digits", tmp_path)


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "file").mkdir()  # a folder in the way
    with pytest.raises(RunError, match="cannot write"):
        write_atomically(tmp_path / "set" / "file", b"content")
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["file"]


def test_the_data_folder_is_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDSIM_DATA", str(tmp_path / "mine"))
    assert data_folder() == tmp_path / "mine"
    monkeypatch.delenv("FEDSIM_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data_folder().name == "fedsim"


def test_settings_that_do_not_fit_a_source() -> None:
    with pytest.raises(ScenarioError, match="no data source 'digit'; allowed: digits, "):
        load("digit")
    with pytest.raises(ScenarioError, match="source digits has no option 'rows'; options: none"):
        load("digits", rows=4)
    with pytest.raises(ScenarioError, match=r"data\.options\.rows: expected a whole number in 10\.\.500000, got 4"):
        load("purchase_like", rows=4)
    with pytest.raises(ScenarioError, match=r"data\.path: goes with source csv or npz"):
        load_dataset(Data(source="digits", candidates=10, path="x.csv"))
    with pytest.raises(ScenarioError, match=r"data\.columns: source digits has no column 'sex'; columns: none"):
        load_dataset(Data(source="digits", candidates=10, columns=("sex",)))


def csv_data(folder: Path, content: str, **settings: Any) -> Dataset:
    """Return the data set of a CSV file."""
    (folder / "own.csv").write_text(content)
    fields: dict[str, Any] = {"source": "csv", "path": "own.csv", "label": "ill", "candidates": 10} | settings
    return load_dataset(Data(**fields), folder)


def test_csv_numbers_categories_and_labels(tmp_path: Path) -> None:
    content = "\ufeffage,town,site,ill\n10,Ulm,a,10\n20,Bonn,b,9\n30,Ulm,c,10\n40,Jena,a,9\n"
    records = csv_data(tmp_path, content, columns=("town",), partition=Partition(scheme="natural", column="site"))
    assert records.class_names == ("9", "10")
    assert records.y.tolist() == [1, 0, 1, 0]
    assert records.feature_names == ("age", "town")
    assert set(records.columns) == {"town", "site"}
    x = records.encode(records.features, np.asarray([0, 1]))
    # Public rows 0 and 1: mean 15, deviation 5; towns Bonn and Ulm. Jena is private, so it has no column.
    assert x.tolist() == [[-1, 0, 1], [1, 1, 0], [3, 0, 1], [5, 0, 0]]
    with pytest.raises(ScenarioError, match="give population 2 or more"):
        records.encode(records.features, np.asarray([0]))


def test_csv_classes_stand_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    records = csv_data(tmp_path, "age,ill\n1,100\n2,9\n3,10\n4,9\n")
    assert records.class_names == ("9", "10", "100")
    assert records.y.tolist() == [2, 0, 1, 0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("age,ill\n1,0\n2\n", r"own\.csv:3: expected 2 values as in the header, found 1"),
        ("age,ill\n1,0\n,1\n", r"own\.csv:3: column 'age' has no value"),
        ("age,age,ill\n1,1,0\n", "header of different names"),
        ("age,ill\n", "no records below the header"),
        ("", "expected a header|no records"),
        ("age,sick\n1,0\n", "there is no column 'ill'; columns: age, sick"),
        ("ill\n0\n1\n", "no feature besides the label"),
        ("age,ill\n1,0\n2,0\n", "label 'ill' has 1 different values"),
        ('age,ill\n"1,0\n', r"own\.csv:\d: expected a CSV file in UTF-8"),
        ("age,ill\n1,0\n2,1\0\n", r"own\.csv:3: .* NUL byte"),
        ("age,ill\n1,0\n\n\n2,nan\n", r"own\.csv:5: label 'ill' is 'nan', no class"),
        ("age,ill\n1,yes\n2,NaN\n", r"own\.csv:3: label 'ill' is 'NaN', no class"),
        ("age,ill\n1,0\n2,\n", r"own\.csv:3: column 'ill' has no value"),
        ("age,ill\n1,0\n\n\nNaN,1\n", r"own\.csv:5: column 'age' is NaN, not a number; fill it in"),
        ("age,ill\n1,0\n-inf,1\n", r"own\.csv:3: column 'age' is -inf, too large"),
        ("age,ill\n1,0\n1e308,1\n", r"own\.csv:3: column 'age' is 1e308, too large; allowed: up to 3.4e\+38"),
        ("age,ill\n1,0\n-3.5e38,1\n", r"own\.csv:3: column 'age' is -3.5e38, too large"),
        ("name,ill\n" + "".join(f"p{i},{i % 2}\n" for i in range(300)), "300 different texts"),
    ],
)
def test_csv_mistakes_are_named(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        csv_data(tmp_path, content)


def test_csv_that_is_no_text_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_bytes(b"\xef\xbb\xbfage,ill\n1,0\n\xff,1\n")
    with pytest.raises(ScenarioError, match=r"own\.csv:3: expected a CSV file in UTF-8"):
        load_dataset(Data(source="csv", path="own.csv", label="ill", candidates=10), tmp_path)


def test_the_pool_names_the_file_of_bad_records(tmp_path: Path) -> None:
    data = Data(source="csv", path="own.csv", label="ill", candidates=10)
    constant = "age,town,ill\n" + "".join(f"{i},Ulm,{i % 2}\n" for i in range(200))
    rare = "age,ill\n" + "".join(f"{i},{int(i == 7)}\n" for i in range(200))
    for content, message in {
        constant: r"own\.csv: feature 'town' is constant \(the same in all 200 records\)",
        rare: r"own\.csv: class '1' has 1 record",
    }.items():
        with pytest.raises(ScenarioError, match=message):
            draw_pool(csv_data(tmp_path, content), data, np.random.default_rng(0))


def test_numbers_too_far_from_the_public_ones_are_refused(tmp_path: Path) -> None:
    """The largest float32 passes the file; what counts for a model is how many public spreads it lies away."""
    records = csv_data(tmp_path, "age,ill\n0,0\n1e-3,1\n3.4e38,0\n-3.4e38,1\n2,0\n")
    x = records.encode(records.features, np.asarray([2, 3]))
    assert x[:, 0] == pytest.approx([0, 0, 1, -1, 0])
    with pytest.raises(
        ScenarioError, match=r"own\.csv: column 'age' has the value 3.4e\+38, too large beside the spread"
    ):
        records.encode(records.features, np.asarray([0, 1]))


def test_csv_needs_a_file_and_a_label(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"there is no file .*absent\.csv"):
        load_dataset(Data(source="csv", candidates=10, path="absent.csv", label="y"), tmp_path)
    with pytest.raises(ScenarioError, match="needs the name of the label column"):
        csv_data(tmp_path, "a,ill\n1,0\n", label=None)


def npz(folder: Path, **arrays: Any) -> Dataset:
    """Return the data set of an npz file."""
    np.savez(folder / "own.npz", **arrays)
    return load_dataset(Data(source="npz", path="own.npz", candidates=10), folder)


def test_npz_images_are_scaled_by_their_range(tmp_path: Path) -> None:
    y = np.asarray([4, 7, 4])
    grey = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    records = npz(tmp_path, x=grey, y=y)
    assert records.features.shape == (3, 1, 2, 2)
    assert records.class_names == ("4", "7")
    assert records.y.tolist() == [0, 1, 0]
    assert records.encode(records.features, np.arange(0))[2, 0, 1, 1] == pytest.approx(11 / 255)
    with pytest.raises(ScenarioError, match=r"numbers in \[0, 1\]"):
        npz(tmp_path, x=grey.astype(np.float64), y=y)
    with pytest.raises(ScenarioError, match="1 or 3 channels"):
        npz(tmp_path, x=np.zeros((3, 2, 4, 4), np.uint8), y=y)
    with pytest.raises(ScenarioError, match=r"found x \(3, 2, 2\), y \(2,\)"):
        npz(tmp_path, x=grey, y=y[:2])
    with pytest.raises(ScenarioError, match="no 'y'"):
        npz(tmp_path, x=grey)


def test_npz_mistakes_are_named(tmp_path: Path) -> None:
    x = np.arange(6.0).reshape(3, 2)
    with pytest.raises(ScenarioError, match=r"own\.npz: record 2: label 'y' is 'nan', no class"):
        npz(tmp_path, x=x, y=np.asarray([0, np.nan, 1]))
    with pytest.raises(ScenarioError, match=r"own\.npz: record 3: label 'y' is '', no class"):
        npz(tmp_path, x=x, y=np.asarray(["a", "b", ""]))
    with pytest.raises(ScenarioError, match=r"own\.npz: expected numbers or text in y, found type complex128"):
        npz(tmp_path, x=x, y=np.asarray([0, 1j, 0]))
    assert npz(tmp_path, x=x, y=np.asarray([b"a", b"b", b"a"])).class_names == ("a", "b")
    for shape in ((3, 1, 0, 4), (3, 0), (0, 2)):
        with pytest.raises(ScenarioError, match=r"own\.npz: .* which holds no value"):
            npz(tmp_path, x=np.zeros(shape), y=np.arange(shape[0]))


@pytest.mark.parametrize("content", [b"age,ill\n1,0\n", b"", b"PK\x03\x04 not a zip"])
def test_what_is_no_npz_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "own.npz").write_bytes(content)
    with pytest.raises(ScenarioError, match=r"own\.npz: is not an npz file") as caught:
        load_dataset(Data(source="npz", path="own.npz", candidates=10), tmp_path)
    assert "pickle" not in str(caught.value)


def test_an_npy_or_another_zip_is_no_npz(tmp_path: Path) -> None:
    data = Data(source="npz", path="own.npz", candidates=10)
    with (tmp_path / "own.npz").open("wb") as handle:
        np.save(handle, np.arange(3))
    with pytest.raises(ScenarioError, match=r"own\.npz: is not an npz file"):
        load_dataset(data, tmp_path)
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        archive.writestr("x", "text")
        archive.writestr("y", "text")
    with pytest.raises(ScenarioError, match=r"own\.npz: .*'x' is no array"):
        load_dataset(data, tmp_path)


def test_npz_never_unpickles(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="plain arrays, found: pickled Python objects"):
        npz(tmp_path, x=np.asarray([{"a": 1}, None], dtype=object), y=np.arange(2))


def test_every_source_is_documented() -> None:
    text = (Path(__file__).parent.parent / "docs" / "data.md").read_text()
    for name, source in SOURCES.items():
        assert f"`{name}`" in text
        assert source.citation
        assert source.licence
