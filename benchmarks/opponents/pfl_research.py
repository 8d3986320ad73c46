"""pfl-research: its simulated backend in one process, federated averaging weighted by records."""

import asyncio

import torch
import torch.nn.functional as F
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.hyperparam import NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from torch import Tensor, nn

from benchmarks.opponents.local import module, optimizer
from benchmarks.race import Tick
from benchmarks.workloads import LOCAL, Task, Turn


class Network(nn.Module):
    """The model with the two methods that pfl asks for."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the mean loss of a batch."""
        return F.cross_entropy(self.inner(x), y)

    def metrics(self, x: Tensor, y: Tensor) -> dict[str, Weighted]:
        """Return the loss; pfl evaluates in its first round, which is not timed."""
        return {"loss": Weighted(float(self.loss(x, y)) * len(y), len(y))}


class Ticking(TrainingProcessCallback):  # type: ignore[misc]
    """Tells when a round is over."""

    def __init__(self, tick: Tick) -> None:
        self.tick = tick

    def after_central_iteration(
        self,
        aggregate_metrics: Metrics,  # noqa: ARG002
        model: PyTorchModel,
        *,
        central_iteration: int,  # noqa: ARG002
    ) -> tuple[bool, Metrics]:
        """Note the time."""
        self.tick([parameter.detach() for parameter in model.pytorch_model.parameters()])
        return False, Metrics()


def run(task: Task, tick: Tick) -> None:
    """Run the task in this process."""
    torch.set_num_threads(1)
    asyncio.set_event_loop(asyncio.new_event_loop())  # pfl asks for the thread's loop, and newer Pythons make none
    turns = iter([turn for turns in task.rounds for turn in turns])

    def dataset(turn: Turn) -> PyTorchTensorDataset:
        rows = torch.from_numpy(turn.rows)
        return PyTorchTensorDataset((task.x[rows], task.y[rows]), user_id=str(turn.client))

    data = FederatedDataset(dataset, lambda: next(turns))
    network = Network(module(task))
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=len(task.rounds),
            evaluation_frequency=len(task.rounds),
            train_cohort_size=len(task.rounds[0]),
            val_cohort_size=None,
        ),
        backend=SimulatedBackend(training_data=data, val_data=data, postprocessors=[WeightByDatapoints()]),
        model=PyTorchModel(network, optimizer, torch.optim.SGD(network.parameters(), lr=1.0)),
        model_train_params=NNTrainHyperParams(
            local_num_epochs=LOCAL.epochs, local_learning_rate=LOCAL.learning_rate, local_batch_size=LOCAL.batch_size
        ),
        callbacks=[Ticking(tick)],
        send_metrics_to_platform=False,
    )
