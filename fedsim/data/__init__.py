"""Data: where records come from, who would own them, and which of them are private."""

from fedsim.data.computed import Computed, with_computed
from fedsim.data.dataset import Dataset
from fedsim.data.partition import PARTITIONS
from fedsim.data.pool import Pool, draw_pool, victim_rows
from fedsim.data.sources import SOURCES, Source, Status, get, load_dataset, status
from fedsim.data.store import data_folder

__all__ = [
    "PARTITIONS",
    "SOURCES",
    "Computed",
    "Dataset",
    "Pool",
    "Source",
    "Status",
    "data_folder",
    "draw_pool",
    "get",
    "load_dataset",
    "status",
    "victim_rows",
    "with_computed",
]
