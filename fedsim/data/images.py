"""Image sets in the formats of their publishers: IDX and CIFAR's binary version (never the pickled one)."""

import math

import numpy as np
from numpy.typing import NDArray

from fedsim.data.dataset import Dataset, dataset, pixels
from fedsim.data.request import Request, whole_options
from fedsim.data.store import PublishedFile, read_published
from fedsim.errors import ScenarioError

Bytes = NDArray[np.uint8]

FASHION_CLASSES = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR_SHAPE = (3, 32, 32)

IDX_NAMES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def _idx_files(mirrors: tuple[str, ...], hashes: tuple[str, ...]) -> tuple[PublishedFile, ...]:
    """Return the four files of an IDX set."""
    return tuple(
        PublishedFile(name, tuple(mirror + name for mirror in mirrors), sha256=sha256)
        for name, sha256 in zip(IDX_NAMES, hashes, strict=True)
    )


FASHION_MNIST_FILES = _idx_files(
    (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
)
MNIST_FILES = _idx_files(
    ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)
CIFAR10_MEMBERS = tuple(
    f"cifar-10-batches-bin/{name}.bin" for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
)
CIFAR10_FILES = (
    PublishedFile(
        "cifar-10-binary.tar.gz",
        ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
        members=tuple((member, "") for member in CIFAR10_MEMBERS),
        md5="c32a1d4ab5d03f1284b67883e8d87530",
    ),
)
CIFAR100_MEMBERS = ("cifar-100-binary/train.bin", "cifar-100-binary/test.bin")
CIFAR100_NAMES = "cifar-100-binary/fine_label_names.txt"
CIFAR100_FILES = (
    PublishedFile(
        "cifar-100-binary.tar.gz",
        ("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",),
        members=tuple((member, "") for member in (*CIFAR100_MEMBERS, CIFAR100_NAMES)),
        md5="03b5dce01913d631647c71ecec9e9cb8",
    ),
)


def fashion_mnist(request: Request) -> Dataset:
    """Return Fashion-MNIST, its training and test files as one, images [n, 1, 28, 28]."""
    return _idx_set(request, FASHION_MNIST_FILES, FASHION_CLASSES)


def mnist(request: Request) -> Dataset:
    """Return MNIST, its training and test files as one, images [n, 1, 28, 28]."""
    return _idx_set(request, MNIST_FILES, tuple(str(digit) for digit in range(10)))


def cifar10(request: Request) -> Dataset:
    """Return CIFAR-10, its training and test files as one, images [n, 3, 32, 32]."""
    whole_options(request.data, {})
    contents = read_published(CIFAR10_FILES[0], request.folder)
    images, labels = cifar_records(b"".join(contents[member] for member in CIFAR10_MEMBERS), label_bytes=1)
    return dataset(images, labels, CIFAR10_CLASSES, pixels)


def cifar100(request: Request) -> Dataset:
    """Return CIFAR-100 with its fine labels, its training and test files as one, images [n, 3, 32, 32]."""
    whole_options(request.data, {})
    contents = read_published(CIFAR100_FILES[0], request.folder)
    images, labels = cifar_records(b"".join(contents[member] for member in CIFAR100_MEMBERS), label_bytes=2)
    return dataset(images, labels, tuple(contents[CIFAR100_NAMES].decode().split()), pixels)


def cifar_records(raw: bytes, label_bytes: int) -> tuple[Bytes, Bytes]:
    """Return images [n, 3, 32, 32] and the last of each record's label bytes [n]."""
    length = label_bytes + math.prod(CIFAR_SHAPE)
    if not raw or len(raw) % length:
        raise ScenarioError(f"CIFAR: expected records of {length} bytes, found {len(raw)} bytes")
    records = np.frombuffer(raw, dtype=np.uint8).reshape(-1, length)
    return records[:, label_bytes:].reshape(-1, *CIFAR_SHAPE), records[:, label_bytes - 1]


def idx_array(raw: bytes, name: str) -> Bytes:
    """Return the array of an IDX file of unsigned bytes: magic 0 0 8 d, then d big-endian sizes, then the bytes."""
    dimensions = raw[3] if len(raw) >= 4 and raw[:3] == b"\0\0\x08" else 0
    if dimensions == 0 or len(raw) < 4 + 4 * dimensions:
        raise ScenarioError(f"{name}: expected an IDX file of unsigned bytes, found the first bytes {raw[:4].hex()}")
    shape = tuple(int(size) for size in np.frombuffer(raw, dtype=">u4", count=dimensions, offset=4))
    values = np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * dimensions)
    if len(values) != math.prod(shape):
        raise ScenarioError(f"{name}: expected {math.prod(shape)} values of shape {shape}, found {len(values)}")
    return values.reshape(shape)


def _idx_set(request: Request, files: tuple[PublishedFile, ...], class_names: tuple[str, ...]) -> Dataset:
    """Return the four files as one set."""
    whole_options(request.data, {})
    parts = [idx_array(read_published(file, request.folder)[file.name], file.name) for file in files]
    images = np.concatenate([parts[0], parts[2]])[:, None, :, :]
    return dataset(images, np.concatenate([parts[1], parts[3]]), class_names, pixels)
