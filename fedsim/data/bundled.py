"""Data that come with scikit-learn. Numbers are scaled by ranges known beforehand.

scikit-learn takes a second to import, so each function imports what it needs.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from fedsim.data.dataset import Dataset, as_they_are, dataset
from fedsim.data.request import Request, whole_options
from fedsim.data.table import Number, encode_table

DIGITS_LEVELS = 16  # a digit's pixel counts the dark ones among 16

# The minima and maxima of the summary table in the set's documentation, as scikit-learn prints it.
BREAST_CANCER_RANGES = (
    (6.981, 28.11),
    (9.71, 39.28),
    (43.79, 188.5),
    (143.5, 2501.0),
    (0.053, 0.163),
    (0.019, 0.345),
    (0.0, 0.427),
    (0.0, 0.201),
    (0.106, 0.304),
    (0.05, 0.097),
    (0.112, 2.873),
    (0.36, 4.885),
    (0.757, 21.98),
    (6.802, 542.2),
    (0.002, 0.031),
    (0.002, 0.135),
    (0.0, 0.396),
    (0.0, 0.053),
    (0.008, 0.079),
    (0.001, 0.03),
    (7.93, 36.04),
    (12.02, 49.54),
    (50.41, 251.2),
    (185.2, 4254.0),
    (0.071, 0.223),
    (0.027, 1.058),
    (0.0, 1.252),
    (0.0, 0.291),
    (0.156, 0.664),
    (0.055, 0.208),
)

# Round ranges that hold human ages (years), body-mass indices, blood pressures (mm Hg) and serum values (mg/dl).
DIABETES_RANGES = (
    Number("age", 0, 100),
    Number("sex", 1, 2),
    Number("bmi", 10, 50),
    Number("bp", 40, 160),
    Number("s1", 50, 350),
    Number("s2", 0, 250),
    Number("s3", 0, 120),
    Number("s4", 0, 10),
    Number("s5", 3, 7),
    Number("s6", 40, 160),
)
DIABETES_MEDIAN_PROGRESSION = 140.5


def digits(request: Request) -> Dataset:
    """Return the 1,797 handwritten digits, images [n, 1, 8, 8]."""
    whole_options(request.data, {})
    table = np.loadtxt(_digits_file(), delimiter=",")  # [n, 64 pixels and the digit]
    images = table[:, :-1].reshape(-1, 1, 8, 8) / DIGITS_LEVELS
    return dataset(
        images.astype(np.float32), table[:, -1].astype(np.int64), tuple(str(digit) for digit in range(10)), as_they_are
    )


def _digits_file() -> Path:
    """Return the file that `sklearn.datasets.load_digits` reads: the first run is not to wait for scikit-learn."""
    package = find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"


def breast_cancer(request: Request) -> Dataset:
    """Return the 569 Wisconsin breast-cancer records, 30 numbers each."""
    whole_options(request.data, {})
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    low, high = np.asarray(BREAST_CANCER_RANGES).T
    return dataset(
        ((bunch.data - low) / (high - low)).astype(np.float32),
        bunch.target,
        ("malignant", "benign"),
        as_they_are,
        feature_names=tuple(str(name) for name in bunch.feature_names),
    )


def diabetes(request: Request) -> Dataset:
    """Return the 442 diabetes records; the label is progression above the published median.

    Columns: sex ("1" or "2") and age.
    """
    whole_options(request.data, {})
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes(scaled=False)
    text = {name: bunch.data[:, place].astype(str) for place, name in enumerate(bunch.feature_names)}
    table = encode_table(text, DIABETES_RANGES)
    sex = bunch.data[:, bunch.feature_names.index("sex")].astype(np.int64).astype(str)
    return dataset(
        table.x,
        (bunch.target > DIABETES_MEDIAN_PROGRESSION).astype(np.int64),
        ("slow progression", "fast progression"),
        as_they_are,
        feature_names=table.names,
        columns={"sex": sex, "age": bunch.data[:, 0]},
        notes=("The set does not say which sex code is which.",),
    )
