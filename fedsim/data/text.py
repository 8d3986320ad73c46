"""Text: the next character of a play, a client a speaker."""

import numpy as np
from numpy.typing import NDArray

from fedsim.data.dataset import Dataset, Features, dataset
from fedsim.data.request import Request, whole_options
from fedsim.data.store import PublishedFile, read_published

TINYSHAKESPEARE_FILES = (
    PublishedFile(
        "input.txt",
        ("https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",),
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
)
ALPHABET = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # the 65 characters of the file
WINDOW = 16


def tinyshakespeare(request: Request) -> Dataset:
    """Return windows of 16 characters and the character that follows; windows do not overlap and stay within a speech.

    Option rows (20000): that many windows, evenly spaced over the play. Column speaker.
    """
    limit = whole_options(request.data, {"rows": (20_000, 100, 1_000_000)})["rows"]
    play = read_published(TINYSHAKESPEARE_FILES[0], request.folder)["input.txt"].decode("ascii")
    windows: list[str] = []
    speakers: list[str] = []
    for speech in play.strip().split("\n\n"):
        speaker, _, words = speech.partition(":\n")
        cut = [words[start : start + WINDOW + 1] for start in range(0, len(words) - WINDOW, WINDOW + 1)]
        windows += cut
        speakers += [speaker] * len(cut)
    kept = np.unique(np.linspace(0, len(windows) - 1, min(limit, len(windows))).astype(np.int64))
    place = {character: code for code, character in enumerate(ALPHABET)}
    codes = np.asarray([[place[character] for character in windows[row]] for row in kept], dtype=np.uint8)
    return dataset(
        codes[:, :WINDOW],
        codes[:, WINDOW],
        tuple(ALPHABET),
        one_hot,
        feature_names=tuple(f"character {place}" for place in range(1, WINDOW + 1)),
        columns={"speaker": np.asarray(speakers)[kept]},
        notes=(f"The model sees {WINDOW} characters, one-hot over an alphabet of {len(ALPHABET)}.",),
    )


def one_hot(features: Features, public_rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return [n, 16 * 65]: a one for each character."""
    del public_rows
    return np.eye(len(ALPHABET), dtype=np.float32)[features].reshape(len(features), -1)
