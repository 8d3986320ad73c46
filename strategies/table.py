"""Flower's own strategies, unchanged; a row says what a scenario may set and what the strategy needs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.serverapp import strategy as flower

Option = bool | int | float | str


@dataclass(frozen=True)
class Strategy:
    """A row: `make(**options)` builds the Flower strategy; `options` are what a scenario may set, with their defaults.

    min_clients: the fewest replies a round must bring for the strategy to do what its name says.
    """

    title: str
    summary: str
    paper: str
    make: Callable[..., flower.Strategy]
    options: Mapping[str, Option] = field(default_factory=dict)
    min_clients: Callable[[Mapping[str, Any]], int] = lambda _options: 1


def _needs(slope: int, intercept: int) -> Callable[[Mapping[str, Any]], int]:
    return lambda options: slope * int(options["num_malicious_nodes"]) + intercept


_ADAPTIVE = "S. Reddi et al., Adaptive Federated Optimization, ICLR 2021, https://arxiv.org/abs/2003.00295"

STRATEGIES: dict[str, Strategy] = {
    "fedavg": Strategy(
        "FedAvg",
        "Average of the clients' models, weighted by their number of examples.",
        "B. McMahan et al., Communication-Efficient Learning of Deep Networks, AISTATS 2017, https://arxiv.org/abs/1602.05629",
        flower.FedAvg,
    ),
    "fedprox": Strategy(
        "FedProx",
        "FedAvg whose clients are pulled towards the model they received.",
        "T. Li et al., Federated Optimization in Heterogeneous Networks, MLSys 2020, https://arxiv.org/abs/1812.06127",
        flower.FedProx,
        {"proximal_mu": 0.1},
    ),
    "fedavgm": Strategy(
        "FedAvgM",
        "FedAvg with momentum at the server.",
        "T.-M. H. Hsu, H. Qi, M. Brown, Measuring the Effects of Non-Identical Data Distribution, 2019, https://arxiv.org/abs/1909.06335",
        flower.FedAvgM,
        {"server_learning_rate": 1.0, "server_momentum": 0.9},
    ),
    "fedadam": Strategy(
        "FedAdam",
        "Adam at the server on the averaged update.",
        _ADAPTIVE,
        flower.FedAdam,
        {"eta": 0.1, "eta_l": 0.1, "beta_1": 0.9, "beta_2": 0.99, "tau": 0.001},
    ),
    "fedyogi": Strategy(
        "FedYogi",
        "Yogi at the server on the averaged update.",
        _ADAPTIVE,
        flower.FedYogi,
        {"eta": 0.01, "eta_l": 0.0316, "beta_1": 0.9, "beta_2": 0.99, "tau": 0.001},
    ),
    "fedadagrad": Strategy(
        "FedAdagrad",
        "Adagrad at the server on the averaged update.",
        _ADAPTIVE,
        flower.FedAdagrad,
        {"eta": 0.1, "eta_l": 0.1, "tau": 0.001},
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
        {"beta": 0.2},
    ),
    "krum": Strategy(
        "Krum",
        "The one client's model that lies closest to the others.",
        "P. Blanchard et al., Machine Learning with Adversaries, NeurIPS 2017, https://arxiv.org/abs/1703.02757",
        flower.Krum,
        {"num_malicious_nodes": 0},
        _needs(2, 3),
    ),
    "multikrum": Strategy(
        "MultiKrum",
        "Average of the several clients' models that lie closest to the others.",
        "P. Blanchard et al., Machine Learning with Adversaries, NeurIPS 2017, https://arxiv.org/abs/1703.02757",
        flower.MultiKrum,
        {"num_malicious_nodes": 0, "num_nodes_to_select": 1},
        _needs(2, 3),
    ),
    "bulyan": Strategy(
        "Bulyan",
        "Krum's selection, then a trimmed mean of what it selected.",
        "E. M. El Mhamdi, R. Guerraoui, S. Rouault, The Hidden Vulnerability, ICML 2018, https://arxiv.org/abs/1802.07927",
        flower.Bulyan,
        {"num_malicious_nodes": 0},
        _needs(4, 3),
    ),
    "qfedavg": Strategy(
        "q-FedAvg",
        "Updates weighted by the clients' losses, for fairness.",
        "T. Li et al., Fair Resource Allocation in Federated Learning, ICLR 2020, https://arxiv.org/abs/1905.10497",
        flower.QFedAvg,
        {"client_learning_rate": 0.1, "q": 0.1},
    ),
}
