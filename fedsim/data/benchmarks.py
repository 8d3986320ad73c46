"""The three tabular sets that membership inference is traditionally measured on (privacytrustlab/datasets)."""

import numpy as np
from numpy.typing import NDArray

from fedsim.data.dataset import Dataset, as_they_are, dataset
from fedsim.data.request import Request, whole_options
from fedsim.data.store import PublishedFile, read_published
from fedsim.errors import ScenarioError

PUBLISHER = "https://github.com/privacytrustlab/datasets/raw/master/"
LOCATION30_FILES = (
    PublishedFile(
        "dataset_location.tgz",
        (PUBLISHER + "dataset_location.tgz",),
        members=(("bangkok", "2ca8f7fc231251e089823e44d39f2d1eed124574cc351c7f80368cfe631dd718"),),
    ),
)
PURCHASE100_FILES = (
    PublishedFile(
        "dataset_purchase.tgz",
        (PUBLISHER + "dataset_purchase.tgz", "https://www.comp.nus.edu.sg/~reza/files/dataset_purchase.tgz"),
        members=(("dataset_purchase", ""),),
    ),
)
TEXAS100_FILES = (
    PublishedFile(
        "dataset_texas.tgz",
        (PUBLISHER + "dataset_texas.tgz", "https://www.comp.nus.edu.sg/~reza/files/dataset_texas.tgz"),
        members=(("texas/100/feats", ""), ("texas/100/labels", "")),
    ),
)


def location30(request: Request) -> Dataset:
    """Return Location-30: 5,010 Foursquare users of Bangkok, 446 bits (places and kinds of places visited)."""
    return _label_first(request, LOCATION30_FILES[0], classes=30)


def purchase100(request: Request) -> Dataset:
    """Return Purchase-100: 197,324 shoppers, 600 binary features (products bought)."""
    return _label_first(request, PURCHASE100_FILES[0], classes=100)


def texas100(request: Request) -> Dataset:
    """Return Texas-100: 67,330 hospital stays, 6,169 binary features."""
    whole_options(request.data, {})
    contents = read_published(TEXAS100_FILES[0], request.folder)
    features = binary_table(contents["texas/100/feats"], "texas/100/feats")
    labels = _numbers(contents["texas/100/labels"].split(), "texas/100/labels")
    return _binary_set(features, labels, classes=100)


def binary_table(raw: bytes, name: str) -> NDArray[np.uint8]:
    """Return a comma-separated table of single characters 0 and 1, [n, d]."""
    whole = raw if raw.endswith(b"\n") else raw + b"\n"
    line = whole.index(b"\n") + 1
    width = len(whole[:line].rstrip())
    if width == 0 or len(whole) % line:
        raise ScenarioError(f"{name}: the lines of the table differ in length")
    characters = np.frombuffer(whole, dtype=np.uint8).reshape(-1, line)
    bits = characters[:, :width:2] - ord("0")
    if bits.max() > 1 or (characters[:, 1:width:2] != ord(",")).any() or (characters[:, -1] != ord("\n")).any():
        raise ScenarioError(f"{name}: expected a table of 0 and 1, separated by commas")
    return bits


def _label_first(request: Request, file: PublishedFile, classes: int) -> Dataset:
    """Return a set whose lines are a label (perhaps in quotes) and then its bits."""
    whole_options(request.data, {})
    member = file.members[0][0]
    raw = read_published(file, request.folder)[member]
    labels, bits = [], []
    for line in raw.splitlines():
        label, _, rest = line.partition(b",")
        labels.append(label.strip(b'"'))
        bits.append(rest)
    return _binary_set(binary_table(b"\n".join(bits), member), _numbers(labels, member), classes)


def _binary_set(features: NDArray[np.uint8], labels: NDArray[np.int64], classes: int) -> Dataset:
    """Return the set; published labels count from 1."""
    names = tuple(f"class {label}" for label in range(1, classes + 1))
    feature_names = tuple(f"feature {place}" for place in range(1, features.shape[1] + 1))
    return dataset(features, labels - 1, names, as_they_are, feature_names=feature_names)


def _numbers(labels: list[bytes], name: str) -> NDArray[np.int64]:
    """Return labels as whole numbers [n]."""
    try:
        return np.asarray([int(label) for label in labels], dtype=np.int64)
    except ValueError as error:
        raise ScenarioError(f"{name}: expected whole numbers as labels: {error}") from error
