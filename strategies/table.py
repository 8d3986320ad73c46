"""Flower's own strategies, unchanged; a row says what a scenario may set and what the strategy needs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.serverapp import strategy as flower

from fedsim.scenario import Option

LARGEST = 1e9
"""No step size, penalty or noise makes sense beyond it, and its powers do not overflow."""


def above_zero(default: float) -> Option:
    """Return an option that is a number above 0."""
    return Option(default, 0, LARGEST, low_open=True)


def _decay(default: float) -> Option:
    """Return an option that says how much of a running average is kept."""
    return Option(default, 0, 1, high_open=True)


@dataclass(frozen=True)
class Strategy:
    """A row: `make(**options)` builds the Flower strategy; `options` are what a scenario may set.

    min_clients: the fewest replies a round must bring for the strategy to do what its name says. average: what a
    strategy that only averages the clients' models, by their number of examples, adds to each round's message.
    """

    title: str
    summary: str
    paper: str
    make: Callable[..., flower.Strategy]
    options: Mapping[str, Option] = field(default_factory=dict)
    min_clients: Callable[[Mapping[str, Any]], int] = lambda _options: 1
    average: Callable[[Mapping[str, Any]], Mapping[str, float]] | None = None


def _needs(slope: int, intercept: int) -> Callable[[Mapping[str, Any]], int]:
    return lambda options: slope * int(options["num_malicious_nodes"]) + intercept


def _adaptive(eta: float, eta_l: float) -> dict[str, Option]:
    return {"eta": above_zero(eta), "eta_l": above_zero(eta_l), "tau": above_zero(0.001)}


_MOMENTS = {"beta_1": _decay(0.9), "beta_2": _decay(0.99)}
_ADAPTIVE = "S. Reddi et al., Adaptive Federated Optimization, ICLR 2021, https://arxiv.org/abs/2003.00295"

STRATEGIES: dict[str, Strategy] = {
    "fedavg": Strategy(
        "FedAvg",
        "Average of the clients' models, weighted by their number of examples.",
        "B. McMahan et al., Communication-Efficient Learning of Deep Networks, AISTATS 2017, https://arxiv.org/abs/1602.05629",
        flower.FedAvg,
        average=lambda _options: {},
    ),
    "fedprox": Strategy(
        "FedProx",
        "FedAvg whose clients are pulled towards the model they received.",
        "T. Li et al., Federated Optimization in Heterogeneous Networks, MLSys 2020, https://arxiv.org/abs/1812.06127",
        flower.FedProx,
        {"proximal_mu": Option(0.1, 0, LARGEST)},
        average=lambda options: {"proximal-mu": float(options["proximal_mu"])},
    ),
    "fedavgm": Strategy(
        "FedAvgM",
        "FedAvg with momentum at the server.",
        "T.-M. H. Hsu, H. Qi, M. Brown, Measuring the Effects of Non-Identical Data Distribution, 2019, https://arxiv.org/abs/1909.06335",
        flower.FedAvgM,
        {"server_learning_rate": above_zero(1.0), "server_momentum": _decay(0.9)},
    ),
    "fedadam": Strategy(
        "FedAdam",
        "Adam at the server on the averaged update.",
        _ADAPTIVE,
        flower.FedAdam,
        _adaptive(0.1, 0.1) | _MOMENTS,
    ),
    "fedyogi": Strategy(
        "FedYogi",
        "Yogi at the server on the averaged update.",
        _ADAPTIVE,
        flower.FedYogi,
        _adaptive(0.01, 0.0316) | _MOMENTS,
    ),
    "fedadagrad": Strategy(
        "FedAdagrad",
        "Adagrad at the server on the averaged update.",
        _ADAPTIVE,
        flower.FedAdagrad,
        _adaptive(0.1, 0.1),
    ),
    "fedmedian": Strategy(
        "FedMedian",
        "Coordinate-wise median of the clients' models.",
        "D. Yin et al., Byzantine-Robust Distributed Learning, ICML 2018, https://arxiv.org/abs/1803.01498",
        flower.FedMedian,
    ),
    "fedtrimmedavg": Strategy(
        "FedTrimmedAvg",
        "Coordinate-wise mean without a share of the largest and smallest values.",
        "D. Yin et al., Byzantine-Robust Distributed Learning, ICML 2018, https://arxiv.org/abs/1803.01498",
        flower.FedTrimmedAvg,
        {"beta": Option(0.2, 0, 0.5, high_open=True)},
    ),
    "krum": Strategy(
        "Krum",
        "The one client's model that lies closest to the others.",
        "P. Blanchard et al., Machine Learning with Adversaries, NeurIPS 2017, https://arxiv.org/abs/1703.02757",
        flower.Krum,
        {"num_malicious_nodes": Option(0, 0)},
        _needs(2, 3),
    ),
    "multikrum": Strategy(
        "MultiKrum",
        "Average of the several clients' models that lie closest to the others.",
        "P. Blanchard et al., Machine Learning with Adversaries, NeurIPS 2017, https://arxiv.org/abs/1703.02757",
        flower.MultiKrum,
        {"num_malicious_nodes": Option(0, 0), "num_nodes_to_select": Option(1, 1)},
        lambda options: max(_needs(2, 3)(options), int(options["num_nodes_to_select"])),
    ),
    "bulyan": Strategy(
        "Bulyan",
        "Krum's selection, then a trimmed mean of what it selected.",
        "E. M. El Mhamdi, R. Guerraoui, S. Rouault, The Hidden Vulnerability, ICML 2018, https://arxiv.org/abs/1802.07927",
        flower.Bulyan,
        {"num_malicious_nodes": Option(0, 0)},
        _needs(4, 3),
    ),
    "qfedavg": Strategy(
        "q-FedAvg",
        "Updates weighted by the clients' losses, for fairness.",
        "T. Li et al., Fair Resource Allocation in Federated Learning, ICLR 2020, https://arxiv.org/abs/1905.10497",
        flower.QFedAvg,
        {"client_learning_rate": above_zero(0.1), "q": Option(0.1, 0, 100)},
    ),
}
