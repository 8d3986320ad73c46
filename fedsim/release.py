"""The output policy: what the public gets to see of the final model."""

import numpy as np
from numpy.typing import NDArray

from fedsim.scenario import Release
from fedsim.transcript import Arrays
from fedsim.views import Answer, Floats, Oracle, Public, query, softmax


def released(public: Public, arrays: Arrays, release: Release) -> Oracle:
    """Return the oracle through which anybody may query the final model under the output policy.

    probabilities: all classes. top_k: the k largest, the rest NaN. rounded: to `digits` decimals. temperature:
    softmax(logits / temperature).
    label: the class alone.
    """

    def answer(x: NDArray[np.float32]) -> Answer:
        logits = query(public, arrays, x)
        return Answer(logits.argmax(axis=1), _shown(logits, release))

    return answer


def _shown(logits: Floats, release: Release) -> Floats | None:
    match release.output:
        case "label":
            return None
        case "temperature":
            return softmax(logits / release.temperature)
        case "rounded":
            return np.asarray(softmax(logits).round(release.digits))
        case "top_k":
            probabilities = softmax(logits)
            hidden = probabilities.argsort(axis=1, kind="stable")[:, : -release.k]
            np.put_along_axis(probabilities, hidden, np.nan, axis=1)
            return probabilities
        case "probabilities":
            return softmax(logits)


def in_words(release: Release) -> str:
    """Return what the public gets, in a few words."""
    if release.access == "white_box":
        return "the final model's parameters"
    shown = {
        "probabilities": "all class probabilities",
        "top_k": f"the {release.k} largest class probabilities",
        "rounded": f"class probabilities rounded to {release.digits} decimals",
        "temperature": f"class probabilities at temperature {release.temperature:g}",
        "label": "the predicted label only",
    }
    return f"answers to queries: {shown[release.output]}"
