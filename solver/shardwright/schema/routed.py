"""Routed pipelines: nodes that hold layer intervals, requests that flow through them.

The input names nodes by number, gives each node type its tokens/s by the number of
layers it holds, and the links in tokens/s. The result gives every node its interval
[start, end), the flow, and the routes that carry it.
"""

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
    Number,
)
from shardwright.schema.result import Status, StoppedBy

MAX_LAYERS = 2000
MAX_NODES = 500
UTOK = 10**6
"""Micro-tokens/s in one token/s: every rate is cut to this scale, never rounded up."""

Rate = Annotated[Number, Field(gt=0, le=1e9)]
"""tokens/s."""

Endpoint = Index | Literal["source", "sink"]
"""A node's id; ``source`` and ``sink`` are both the coordinator."""

_LINK = ("from", "to", "tokens_per_s", "latency_ms")


class RoutedNode(Document):
    """One node; ``max_layers`` cuts its type's table, where its memory is smaller."""

    id: Index
    type: Name
    max_layers: Annotated[int, Field(ge=1, le=MAX_LAYERS)] | None = None


class RoutedLink(Document):
    """A directed link, written ``[from, to, tokens_per_s]`` or with ``latency_ms``."""

    source: Annotated[Endpoint, Field(alias="from")]
    target: Annotated[Endpoint, Field(alias="to")]
    tokens_per_s: Rate
    latency_ms: NonNegative = 0.0

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            if not 3 <= len(value) <= 4:
                raise ValueError(f"a list of {', '.join(_LINK)} (the last optional)")
            return dict(zip(_LINK, value, strict=False))
        return value


class RoutedInstance(Document):
    """Nodes, what each type serves by layers held, and links (directed).

    ``throughput_by_layers[type][k-1]`` is the tokens/s of a node with k layers; the
    table's length is the most layers that fit its memory. It need not fall with k.
    ``stage_ms_by_layers`` likewise is what one pass through the node takes.
    """

    schema_version: Literal["1.0"] = SCHEMA_VERSION
    name: Name
    source: str = ""
    licence: str = ""
    description: str = ""
    model: str = ""
    num_layers: Annotated[int, Field(ge=1, le=MAX_LAYERS)]
    throughput_by_layers: dict[
        Name, Annotated[tuple[Rate, ...], Field(min_length=1, max_length=MAX_LAYERS)]
    ]
    stage_ms_by_layers: dict[
        Name, Annotated[tuple[NonNegative, ...], Field(min_length=1)]
    ] = Field(default_factory=dict)
    nodes: Annotated[tuple[RoutedNode, ...], Field(min_length=1, max_length=MAX_NODES)]
    links: tuple[RoutedLink, ...]

    @property
    def has_latency(self) -> bool:
        """Whether the file says anything about time."""
        timed = any(link.latency_ms for link in self.links)
        return timed or bool(self.stage_ms_by_layers)


class Route(Document):
    """Requests that take these nodes in this order."""

    nodes: tuple[Index, ...]
    tokens_per_s: float


class DepthShare(Document):
    """What flows through routes of so many stages; the latency is weighted by flow.

    ``expected_latency_ms`` is None where the instance says nothing about time.
    """

    stages: Count
    tokens_per_s: float
    expected_latency_ms: float | None


class FrontPoint(Document):
    """The most flow with at most ``max_stages`` stages, and the plan that has it."""

    max_stages: Count
    stages: Count
    max_flow: float
    bound: float
    status: Status
    gap: float
    expected_latency_ms: float | None
    intervals: dict[str, tuple[int, int]]
    routes: tuple[Route, ...]
    seconds: float


class RoutedResult(Document):
    """The answer of one routed solve; rates in tokens/s, cut to 1e-6.

    ``bound`` is proven for every placement under the caps; status OPTIMAL means that
    it equals ``max_flow`` over rates cut to 1e-6 tokens/s. ``max_depth`` is the longest
    route; ``hop_by_hop_depth`` the longest way if every node chose the next hop itself.
    """

    schema_version: Literal["1.0"] = SCHEMA_VERSION
    status: Status
    stopped_by: StoppedBy
    max_flow: float | None
    bound: float
    gap: float | None
    max_depth: int | None
    hop_by_hop_depth: int | None
    max_stages: int | None
    max_latency_ms: float | None
    intervals: dict[str, tuple[int, int]]
    routes: tuple[Route, ...]
    depths: tuple[DepthShare, ...]
    expected_latency_ms: float | None
    front: tuple[FrontPoint, ...] = ()
    method: str
    seconds: float
    seed: int
    instance_sha256: str
    versions: dict[str, str]
