"""Which experts share a node, so that fewer tokens cross between nodes.

Counted crossings: `transitions` [L - 1, E, E], tokens routed to e in a layer and to f
in the next; `coactivation` [L, E, E] (symmetric), tokens routed to e and f together.
Every node takes E / N experts of each layer. An assignment is the node of each expert,
[L, E].
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import factorial

import numpy as np

from .effort import Effort
from .replicate import Floats, Ints

_MOST_STATES = 3_000


@dataclass(frozen=True)
class Traffic:
    """Pair counts; a missing kind is zeros. load [L, E] and slack bound node loads:
    the busiest node stays within (1 + slack) * mean where a swap can bring it there."""

    transitions: Floats
    coactivation: Floats
    load: Floats
    slack: float

    @property
    def layers(self) -> int:
        """MoE layers."""
        return int(self.load.shape[0])

    @property
    def experts(self) -> int:
        """Experts per layer."""
        return int(self.load.shape[1])


@dataclass(frozen=True)
class NodeSplit:
    """Node of every expert [L, E], pairs that cross nodes, and a bound on that count.

    `proven`: the count is the least over all splits with equally many experts a node.
    """

    node: Ints
    crossing: float
    bound: float
    proven: bool


def crossing(traffic: Traffic, node: Ints) -> float:
    """Pairs with their two experts on different nodes (co-activated ones once)."""
    total = 0.0
    for layer in range(traffic.layers):
        apart = node[layer][:, None] != node[layer][None, :]
        total += float((traffic.coactivation[layer] * apart).sum()) / 2
    for layer in range(traffic.layers - 1):
        apart = node[layer][:, None] != node[layer + 1][None, :]
        total += float((traffic.transitions[layer] * apart).sum())
    return total


def split_over_nodes(traffic: Traffic, nodes: int, effort: Effort) -> NodeSplit:
    """Fewest crossings found: a chain program where all splits of a layer can be listed
    (exact without a load limit that binds), else alternating swaps from many starts."""
    if traffic.experts % nodes:
        raise ValueError(
            f"experts: found {traffic.experts}, allowed multiples of {nodes} nodes"
        )
    if _states(traffic.experts, nodes) <= _MOST_STATES:
        node = _chain(traffic, nodes)
        least = crossing(traffic, node)
        kept = limit_node_loads(traffic, node, nodes)
        now = crossing(traffic, kept)
        return NodeSplit(kept, now, least, proven=now <= least * (1 + 1e-12))
    node = _alternate(traffic, nodes, effort)
    node = limit_node_loads(traffic, node, nodes)
    now = crossing(traffic, node)
    return NodeSplit(node, now, min(now, spectral_bound(traffic, nodes)), proven=False)


def _states(experts: int, nodes: int) -> int:
    """Labelled splits of one layer into N nodes of E / N experts."""
    return factorial(experts) // int(factorial(experts // nodes) ** nodes)


def all_splits(experts: int, nodes: int) -> Ints:
    """Every labelled split of one layer, as nodes [states, E]."""
    found: list[list[int]] = []

    def fill(node: int, left: tuple[int, ...], chosen: list[int]) -> None:
        if node == nodes:
            found.append(list(chosen))
            return
        for part in combinations(left, experts // nodes):
            for e in part:
                chosen[e] = node
            fill(node + 1, tuple(e for e in left if e not in part), chosen)

    fill(0, tuple(range(experts)), [0] * experts)
    return np.array(found)


def _chain(traffic: Traffic, nodes: int) -> Ints:
    """Shortest path over layers and splits: the fewest crossings of all, [L, E]."""
    splits = all_splits(traffic.experts, nodes)
    member = (splits[:, :, None] == np.arange(nodes)).astype(np.float64)
    flat = member.reshape(len(splits), -1)
    inside = np.zeros(len(splits))
    back = []
    for layer in range(traffic.layers):
        kept = _kept_inside(traffic.coactivation[layer], member)
        if layer:
            carry = np.einsum("sen,ef->sfn", member, traffic.transitions[layer - 1])
            both = inside[:, None] + carry.reshape(len(splits), -1) @ flat.T
            back.append(both.argmax(axis=0))
            inside = both.max(axis=0)
        inside = inside + kept
    path = [int(inside.argmax())]
    for step in reversed(back):
        path.append(int(step[path[-1]]))
    return splits[path[::-1]]


def _kept_inside(pairs: Floats, member: Floats) -> Floats:
    """Co-activated pairs inside nodes for each split, [states]."""
    joined = np.einsum("ef,sfn->sen", pairs, member)
    kept: Floats = (joined * member).sum(axis=(1, 2)) / 2
    return kept


def _pull(traffic: Traffic, node: Ints, layer: int, nodes: int) -> Floats:
    """Pairs that expert e of a layer would keep inside on node n, [E, N]."""
    eye = np.eye(nodes)
    pull = traffic.coactivation[layer] @ eye[node[layer]]
    if layer:
        pull = pull + traffic.transitions[layer - 1].T @ eye[node[layer - 1]]
    if layer + 1 < traffic.layers:
        pull = pull + traffic.transitions[layer] @ eye[node[layer + 1]]
    out: Floats = pull
    return out


def _swap_gain(traffic: Traffic, node: Ints, layer: int, nodes: int) -> Floats:
    """Crossings saved by swapping the nodes of e and f in a layer, [E, E]."""
    pull, here = _pull(traffic, node, layer, nodes), node[layer]
    to_other = pull[:, here] - pull[np.arange(here.size), here][:, None]
    gain = to_other + to_other.T - 2 * traffic.coactivation[layer]
    return np.where(here[:, None] == here[None, :], 0.0, gain)


def _descend(traffic: Traffic, node: Ints, nodes: int, effort: Effort) -> Ints:
    """Best swaps, layer after layer, until no layer gains."""
    node = node.copy()
    moving = True
    while moving and not effort.deadline.expired():
        moving = False
        for layer in range(traffic.layers):
            while True:
                gain = _swap_gain(traffic, node, layer, nodes)
                e, f = divmod(int(gain.argmax()), gain.shape[1])
                if gain[e, f] <= 1e-9 * max(1.0, float(abs(gain).max())):
                    break
                node[layer, [e, f]] = node[layer, [f, e]]
                moving = True
    return node


def _alternate(traffic: Traffic, nodes: int, effort: Effort) -> Ints:
    """The best of several seeded starts, each brought to a swap optimum."""
    random = np.random.default_rng(effort.seed)
    even = np.repeat(np.arange(nodes), traffic.experts // nodes)
    best, least = None, np.inf
    for turn in range(max(1, min(12, effort.restarts))):
        if best is not None and effort.deadline.expired():
            break
        first = even if turn == 0 else random.permutation(even)
        start = np.repeat(first[None], traffic.layers, axis=0)
        node = _descend(traffic, start, nodes, effort)
        now = crossing(traffic, node)
        if now < least:
            best, least = node, now
    assert best is not None
    return best


def limit_node_loads(traffic: Traffic, node: Ints, nodes: int) -> Ints:
    """Swaps that bring each layer's busiest node within the slack, cheapest first."""
    node = node.copy()
    for layer, load in enumerate(traffic.load):
        limit = load.sum() / nodes * (1 + traffic.slack)
        for _ in range(load.size):
            total = np.bincount(node[layer], load, minlength=nodes).astype(np.float64)
            worst = int(total.argmax())
            if total[worst] <= limit:
                break
            if not _relieve(traffic, node, layer, worst, total):
                break
    return node


def _relieve(
    traffic: Traffic, node: Ints, layer: int, worst: int, total: Floats
) -> bool:
    """Swap an expert off the worst node for the least crossings per token removed."""
    load, here = traffic.load[layer], node[layer]
    shift = load[:, None] - load[None, :]
    after = total[here][None, :] + shift
    fine = (here[:, None] == worst) & (here[None, :] != worst) & (shift > 0)
    fine &= after < total[worst]
    if not fine.any():
        return False
    loss = -_swap_gain(traffic, node, layer, total.size)
    price = np.where(fine, loss / np.where(fine, shift, 1.0), np.inf)
    e, f = divmod(int(price.argmin()), load.size)
    node[layer, [e, f]] = node[layer, [f, e]]
    return True


def spectral_bound(traffic: Traffic, nodes: int) -> float:
    """Crossings >= all pairs - sum over parts of what balanced nodes can keep.

    With indicator X (E x N, columns of E / N ones) = J / N + Y, Y has rows summing to
    zero and singular values sqrt(E / N), N - 1 of them. So a matrix A of transitions
    keeps at most sum(A) / N + (E / N) * (its N - 1 largest singular values, centred),
    co-activation half of the same with eigenvalues. Parts are bounded one by one.
    """
    size = traffic.experts / nodes
    centre = np.eye(traffic.experts) - 1.0 / traffic.experts
    bound = 0.0
    for pairs in traffic.transitions:
        inner = np.linalg.svd(centre @ pairs @ centre, compute_uv=False)
        kept = pairs.sum() / nodes + size * inner[: nodes - 1].sum()
        bound += max(0.0, float(pairs.sum() - kept))
    for pairs in traffic.coactivation:
        whole = float(pairs.sum())
        eigen = np.linalg.eigvalsh(centre @ pairs @ centre)[::-1]
        kept = whole / nodes + size * eigen[: nodes - 1].sum()
        bound += max(0.0, float(whole - kept) / 2)
    return bound


def experts_by_node(node: Ints, nodes: int) -> Ints:
    """Experts [L, N, E / N] of each node from the node of each expert [L, E]."""
    order = np.argsort(node, axis=1, kind="stable")
    return order.reshape(node.shape[0], nodes, -1)
