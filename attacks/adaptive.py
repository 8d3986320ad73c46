"""Which attacks know a defence: a defence that met none of them has not been tried.

A defence is named as `fedsim.lint` finds it in a scenario. Also which attacks are nothing without public records.
"""

from attacks.table import ATTACKS

_MATCHED = tuple(name for name, row in ATTACKS.items() if row.min_references)
"""Their references train by the same recipe, noise included, so what they expect is what the defence leaves over."""
_CANARIES = tuple(name for name, row in ATTACKS.items() if row.game == "canaries")
_SUMS = tuple(
    name for name, row in ATTACKS.items() if row.signal.reads in ("models", "sum", "sums", "ascent", "inconsistency")
)
"""What the sum of the updates, or the models of the rounds, give away."""

ADAPTIVE: dict[str, tuple[str, ...]] = {
    "label": ("label_only", "gap"),
    "top_k": ("label_only",),
    "rounded": ("label_only",),
    "temperature": ("lira_untempered", "label_only"),
    "budget": ("label_only",),  # spends what there is
    "monitor": ("label_only",),  # goes round all records, so that copies of one lie far apart in its stream
    "secure_aggregation": (*_SUMS, "lira", "rmia"),
    "privacy": (*_MATCHED, *_CANARIES),
    "sparsify": (
        "update_cosine",
        "update_lira",
        "update_lira_offline",
        "update_watson",
        "fedmia_cosine",
        "fedmia_loss",
    ),
}
"""Defence -> attacks that know it. Sparsified updates are met by what is pooled over the rounds: a coordinate that is
left out in one is sent in another.
"""

NEEDS_PUBLIC = (
    *("attack_p", "lda", "owner_rmia", "quantile", "rmia", "rmia_offline", "source_labels"),
    *(name for name, row in ATTACKS.items() if row.game == "labels"),
)
"""Attacks that cannot run where the attacker holds no public records."""
