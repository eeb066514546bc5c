"""A purchase: GPU types with prices, and what each serves of every kind of request."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from shardwright.schema.base import (
    SCHEMA_VERSION,
    Count,
    Document,
    Index,
    Name,
    NonNegative,
    Positive,
)
from shardwright.schema.instance import GpuReference
from shardwright.schema.result import Status
from shardwright.schema.workload import Lengths

Table = Annotated[
    tuple[
        Annotated[tuple[NonNegative, ...], Field(min_length=1, max_length=64)],
        ...,
    ],
    Field(min_length=1, max_length=64),
]


class MixGpu(Document):
    """A type: its price per hour, requests/s by bucket, and how many can be had.

    ``tputs[i][j]`` is what one machine serves of bucket (i, j) alone; 0: not at all.
    Machines of one ``pool`` share its supply, each taking ``gpus`` of it.
    """

    cost: Positive
    tputs: Table
    max: Index | None = None
    pool: Name | None = None
    gpus: Count = 1


class MixFile(Document):
    """Machines and buckets of requests; ``workload_distribution`` has their shares.

    The requests of a bucket are split in ``slice_factor`` equal slices, each served by
    one type. ``supply`` is the GPUs of every pool.
    """

    schema_version: Literal["1.0"] = SCHEMA_VERSION
    name: Name = "mix"
    gpu_info: Annotated[dict[Name, MixGpu], Field(min_length=1, max_length=256)]
    workload_distribution: Table
    total_request_rate: Positive
    slice_factor: Annotated[int, Field(ge=1, le=10_000)] = 1
    supply: dict[Name, Index] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _tables(self) -> MixFile:
        shape = [len(row) for row in self.workload_distribution]
        if not any(any(row) for row in self.workload_distribution):
            raise ValueError("workload_distribution has no share above 0")
        for name, gpu in self.gpu_info.items():
            if [len(row) for row in gpu.tputs] != shape:
                raise ValueError(
                    f"gpu_info.{name}.tputs has rows of "
                    f"{[len(row) for row in gpu.tputs]} entries; "
                    f"workload_distribution of {shape}"
                )
            if gpu.pool is not None and gpu.pool not in self.supply:
                raise ValueError(f"gpu_info.{name}.pool {gpu.pool!r} has no supply")
        return self


class Bucket(Document):
    """Requests of one kind."""

    input_tokens: Lengths
    output_tokens: Lengths
    request_rate_per_s: Positive


class MixGpuType(GpuReference):
    """A GPU type on offer: ``sizes`` are GPUs of a replica, ``max_gpus`` the supply."""

    sizes: Annotated[tuple[Count, ...], Field(min_length=1, max_length=16)] = (
        1,
        2,
        4,
        8,
    )
    max_gpus: Index | None = None


class MixPlanFile(Document):
    """GPU types on offer and kinds of requests for the model of an instance.

    What a replica of each size serves of each bucket is solved for, under the
    instance's targets and limits.
    """

    schema_version: Literal["1.0"] = SCHEMA_VERSION
    name: Name = "mix"
    instance: Name
    gpu_types: Annotated[dict[Name, MixGpuType], Field(min_length=1, max_length=32)]
    buckets: Annotated[tuple[Bucket, ...], Field(min_length=1, max_length=64)]
    slice_factor: Annotated[int, Field(ge=1, le=10_000)] = 8


class MixResult(Document):
    """Machines to have: OPTIMAL means bound = cost, over slices and tables as rounded.

    ``routing[type]`` is the share of every bucket that it serves, ``load`` the used
    part of its machines. ``capacity`` are rows of the solves behind the tables.
    """

    schema_version: Literal["1.0"] = SCHEMA_VERSION
    name: str
    status: Status
    cost_usd_per_hour: float | None
    bound_usd_per_hour: float | None
    counts: dict[str, int]
    load: dict[str, float]
    routing: dict[str, tuple[tuple[float, ...], ...]]
    rounding: str
    seconds: float
    tables: MixFile
    capacity: tuple[dict[str, Any], ...] = ()
