"""Hospital data: discharge records of diabetic patients, and heart disease in four hospitals."""

import csv
import io

import numpy as np
from numpy.typing import NDArray

from fedsim.data.dataset import Dataset, as_they_are, dataset
from fedsim.data.request import Request, whole_options
from fedsim.data.store import PublishedFile, read_published
from fedsim.data.table import MISSING, Category, Number, encode_table
from fedsim.errors import ScenarioError

UCI = "https://archive.ics.uci.edu/ml/machine-learning-databases/"
DIABETES130_MEMBER = "dataset_diabetes/diabetic_data.csv"
DIABETES130_FILES = (
    PublishedFile(
        "dataset_diabetes.zip",
        (UCI + "00296/dataset_diabetes.zip",),
        members=((DIABETES130_MEMBER, "0689e7ec031237dc63031b938805c48377748761a3b26acab621567afa24df97"),),
    ),
)
DRUGS = (
    "metformin", "repaglinide", "nateglinide", "chlorpropamide", "glimepiride", "acetohexamide", "glipizide",
    "glyburide", "tolbutamide", "pioglitazone", "rosiglitazone", "acarbose", "miglitol", "troglitazone", "tolazamide",
    "examide", "citoglipton", "insulin", "glyburide-metformin", "glipizide-metformin", "glimepiride-pioglitazone",
    "metformin-rosiglitazone", "metformin-pioglitazone",
)  # fmt: skip
# The nine disease groups of Strack et al. (2014), https://doi.org/10.1155/2014/781670, table 2; diabetes (250.xx) is
# cut out first.
DISEASES = (
    ("circulatory", (range(390, 460), range(785, 786))),
    ("respiratory", (range(460, 520), range(786, 787))),
    ("digestive", (range(520, 580), range(787, 788))),
    ("injury", (range(800, 1000),)),
    ("musculoskeletal", (range(710, 740),)),
    ("genitourinary", (range(580, 630), range(788, 789))),
    ("neoplasms", (range(140, 240),)),
)
DISEASE_NAMES = ("diabetes", *(name for name, _ in DISEASES), "other")
AGES = tuple(f"[{low}-{low + 10})" for low in range(0, 100, 10))

# Identifiers as in the set's IDs_mapping.csv; ranges of counts as in the article's table 1, rounded up. Left out:
# weight (97 % missing), medical specialty and payer (half missing; both are columns), and the two identifiers.
DIABETES130_BOOK: tuple[Number | Category, ...] = (
    Category("race", ("Caucasian", "AfricanAmerican", "Hispanic", "Asian", "Other")),
    Category("gender", ("Female", "Male")),
    Category("age", AGES),
    Category("admission_type_id", tuple(str(i) for i in range(1, 9))),
    Category("discharge_disposition_id", tuple(str(i) for i in range(1, 31))),
    Category("admission_source_id", tuple(str(i) for i in range(1, 27))),
    Number("time_in_hospital", 1, 14),
    Number("num_lab_procedures", 1, 132),
    Number("num_procedures", 0, 6),
    Number("num_medications", 1, 81),
    Number("number_outpatient", 0, 100, logarithm=True),
    Number("number_emergency", 0, 100, logarithm=True),
    Number("number_inpatient", 0, 100, logarithm=True),
    Category("diag_1", DISEASE_NAMES),
    Category("diag_2", DISEASE_NAMES),
    Category("diag_3", DISEASE_NAMES),
    Number("number_diagnoses", 1, 16),
    Category("max_glu_serum", ("None", "Norm", ">200", ">300")),
    Category("A1Cresult", ("None", "Norm", ">7", ">8")),
    *(Category(drug, ("No", "Steady", "Up", "Down")) for drug in DRUGS),
    Category("change", ("No", "Ch")),
    Category("diabetesMed", ("No", "Yes")),
)

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
HEART_DISEASE_FILES = tuple(
    PublishedFile(f"processed.{hospital}.data", (f"{UCI}heart-disease/processed.{hospital}.data",), sha256=sha256)
    for hospital, sha256 in zip(
        HOSPITALS,
        (
            "a74b7efa387bc9d108d7d0115d831fe9b414b29ae7124f331b622b4efa0427c8",
            "d1ad108f785768cd3d7e82dc522e6f5a61eea93cccfb3a46ee8076f73fc3d796",
            "834a405ccf5b66ab4056bb77794adc8df0b7125186454c0a1d002d33c6c3b314",
            "e7c93d8d0d2acdadfa4c5e8de768e2191e7f618b952e29623f1f0d5949ff6b8f",
        ),
        strict=True,
    )
)
HEART_NAMES = (
    "age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak", "slope", "ca", "thal",
    "num",
)  # fmt: skip
ZERO_IS_MISSING = ("trestbps", "chol")  # nobody alive has no blood pressure or no cholesterol

# The codes of heart-disease.names; round ranges that hold human ages (years), pressures (mm Hg), cholesterol (mg/dl)
# and heart rates.
HEART_BOOK: tuple[Number | Category, ...] = (
    Number("age", 0, 100),
    Category("sex", ("0", "1")),
    Category("cp", ("1", "2", "3", "4")),
    Number("trestbps", 60, 220, can_miss=True),
    Number("chol", 50, 650, can_miss=True),
    Category("fbs", ("0", "1")),
    Category("restecg", ("0", "1", "2")),
    Number("thalach", 40, 220, can_miss=True),
    Category("exang", ("0", "1")),
    Number("oldpeak", -3, 7, can_miss=True),
    Category("slope", ("1", "2", "3")),
    Number("ca", 0, 3, can_miss=True),
    Category("thal", ("3", "6", "7")),
)


def diabetes130(request: Request) -> Dataset:
    """Return the first stay of each of 71,518 patients; columns race, gender, age, medical_specialty, ...

    The label is readmission. Option classes: 2 (any, the default) or 3 (none, after 30 days, within 30 days).
    """
    classes = whole_options(request.data, {"classes": (2, 2, 3)})["classes"]
    content = read_published(DIABETES130_FILES[0], request.folder)[DIABETES130_MEMBER]
    header, *rows = csv.reader(io.StringIO(content.decode("ascii")))
    encounter, patient = header.index("encounter_id"), header.index("patient_nbr")
    # Two stays of a patient are near-copies; as member and non-member they would give each other away.
    first: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda row: int(row[encounter])):
        first.setdefault(row[patient], row)
    stays = {name: np.asarray(column) for name, column in zip(header, zip(*first.values(), strict=True), strict=True)}
    coded = stays | {name: _disease_groups(stays[name]) for name in ("diag_1", "diag_2", "diag_3")}
    coded["gender"] = np.where(coded["gender"] == "Unknown/Invalid", MISSING, coded["gender"])
    table = encode_table(coded, DIABETES130_BOOK)
    readmitted = stays["readmitted"]
    order = ("NO", ">30", "<30")
    names = ("not readmitted", "after 30 days", "within 30 days") if classes == 3 else ("not readmitted", "readmitted")
    labels = np.minimum(np.argmax(readmitted[:, None] == np.asarray(order), axis=1), classes - 1)
    kept = ("race", "gender", "age", "medical_specialty", "payer_code", "admission_source_id")
    return dataset(
        table.x,
        labels,
        names,
        as_they_are,
        feature_names=table.names,
        columns={name: stays[name] for name in kept},
        notes=("One stay a patient: the first. Diagnoses are grouped into nine diseases.",),
    )


def heart_disease(request: Request) -> Dataset:
    """Return the 920 patients of four hospitals, ill or not; columns hospital, sex (1 male, 0 female), age."""
    whole_options(request.data, {})
    rows: list[list[str]] = []
    hospital: list[str] = []
    for name, file in zip(HOSPITALS, HEART_DISEASE_FILES, strict=True):
        content = read_published(file, request.folder)[file.name].decode("ascii")
        found = [row for row in csv.reader(io.StringIO(content)) if row]
        rows += found
        hospital += [name] * len(found)
    columns = {
        name: _plain_numbers(name, column) for name, column in zip(HEART_NAMES, zip(*rows, strict=True), strict=True)
    }
    table = encode_table(columns, HEART_BOOK)
    return dataset(
        table.x,
        (columns["num"] != "0").astype(np.int64),
        ("healthy", "heart disease"),
        as_they_are,
        feature_names=table.names,
        columns={"hospital": np.asarray(hospital), "sex": columns["sex"], "age": columns["age"].astype(np.float64)},
        notes=("Missing values (?, -9, and 0 for blood pressure and cholesterol) are zeros with an indicator column.",),
    )


def _plain_numbers(name: str, column: tuple[str, ...]) -> NDArray[np.str_]:
    """Return numbers in their shortest form ("63.0" and "63" are one), "?" where missing."""
    missing = {MISSING, "-9", "-9.0"} | ({"0", "0.0"} if name in ZERO_IS_MISSING else set())
    return np.asarray([MISSING if value.strip() in missing else f"{float(value):g}" for value in column])


def _disease_groups(codes: NDArray[np.str_]) -> NDArray[np.str_]:
    """Return the disease group of each ICD-9 code."""
    groups = {code: _disease_group(str(code)) for code in np.unique(codes)}
    return np.asarray([groups[code] for code in codes])


def _disease_group(code: str) -> str:
    """Return the disease group of an ICD-9 code; codes with a letter are causes and contacts, hence other."""
    if code == MISSING:
        return MISSING
    if code[0] in "EV":
        return "other"
    try:
        number = int(float(code))
    except ValueError as error:
        raise ScenarioError(f"diabetes130: {code!r} is no ICD-9 code") from error
    if number == 250:
        return "diabetes"
    return next((name for name, ranges in DISEASES if any(number in span for span in ranges)), "other")
