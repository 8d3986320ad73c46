"""Adult: the 1994 census income data."""

import csv
import io

import numpy as np

from fedsim.data.dataset import Dataset, as_they_are, dataset
from fedsim.data.request import Request, whole_options
from fedsim.data.store import PublishedFile, read_published
from fedsim.data.table import Category, Number, encode_table

PUBLISHER = "https://archive.ics.uci.edu/ml/machine-learning-databases/adult/"
ADULT_FILES = (
    PublishedFile(
        "adult.data.gz",
        (PUBLISHER + "adult.data",),
        sha256="5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
    ),
    PublishedFile(
        "adult.test.gz",
        (PUBLISHER + "adult.test",),
        sha256="a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05",
    ),
)
NAMES = (
    "age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship", "race",
    "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country", "income",
)  # fmt: skip

# The categories of adult.names. Left out: fnlwgt (a sampling weight, no trait of the person) and education (the same as
# education-num). Ages start at 17 and are cut at 90, hours at 99, capital gains at 99,999 by the census; 5,000 holds
# the deductible losses.
CODE_BOOK: tuple[Number | Category, ...] = (
    Number("age", 17, 90),
    Category("workclass", (
        "Private", "Self-emp-not-inc", "Self-emp-inc", "Federal-gov", "Local-gov", "State-gov", "Without-pay",
        "Never-worked",
    )),
    Number("education-num", 1, 16),
    Category("marital-status", (
        "Married-civ-spouse", "Divorced", "Never-married", "Separated", "Widowed", "Married-spouse-absent",
        "Married-AF-spouse",
    )),
    Category("occupation", (
        "Tech-support", "Craft-repair", "Other-service", "Sales", "Exec-managerial", "Prof-specialty",
        "Handlers-cleaners", "Machine-op-inspct", "Adm-clerical", "Farming-fishing", "Transport-moving",
        "Priv-house-serv", "Protective-serv", "Armed-Forces",
    )),
    Category("relationship", ("Wife", "Own-child", "Husband", "Not-in-family", "Other-relative", "Unmarried")),
    Category("race", ("White", "Asian-Pac-Islander", "Amer-Indian-Eskimo", "Other", "Black")),
    Category("sex", ("Female", "Male")),
    Number("capital-gain", 0, 99_999, logarithm=True),
    Number("capital-loss", 0, 5_000, logarithm=True),
    Number("hours-per-week", 1, 99),
    Category("native-country", (
        "United-States", "Cambodia", "England", "Puerto-Rico", "Canada", "Germany", "Outlying-US(Guam-USVI-etc)",
        "India", "Japan", "Greece", "South", "China", "Cuba", "Iran", "Honduras", "Philippines", "Italy", "Poland",
        "Jamaica", "Vietnam", "Mexico", "Portugal", "Ireland", "France", "Dominican-Republic", "Laos", "Ecuador",
        "Taiwan", "Haiti", "Columbia", "Hungary", "Guatemala", "Nicaragua", "Scotland", "Thailand", "Yugoslavia",
        "El-Salvador", "Trinadad&Tobago", "Peru", "Hong", "Holand-Netherlands",
    )),
)  # fmt: skip


def adult(request: Request) -> Dataset:
    """Return the 48,842 Adult records of both files; the columns are people's raw traits (sex, race, age, ...)."""
    whole_options(request.data, {})
    text = "".join(read_published(file, request.folder)[file.name].decode("ascii") for file in ADULT_FILES)
    # The test file starts with a remark, and its labels end in a full stop.
    rows = [row for row in csv.reader(io.StringIO(text), skipinitialspace=True) if len(row) == len(NAMES)]
    columns = {name: np.asarray(column) for name, column in zip(NAMES, zip(*rows, strict=True), strict=True)}
    table = encode_table(columns, CODE_BOOK)
    kept = ("sex", "race", "marital-status", "occupation", "native-country")
    return dataset(
        table.x,
        np.char.startswith(columns["income"], ">50K").astype(np.int64),
        ("<=50K", ">50K"),
        as_they_are,
        feature_names=table.names,
        columns={name: columns[name] for name in kept} | {"age": columns["age"].astype(np.float64)},
        notes=("fnlwgt and education are left out, so many records look alike; only one of each is kept.",),
    )
