"""What a map really loads each GPU with, under the engine's dispatch rule.

`even`: an expert's tokens spread evenly over its copies (vLLM hashes the token index).
`sglang_static`: every source rank sends all tokens for an expert to one copy: its
own GPU's, else the first on its node, else a fair draw. Source traffic is uniform
over the ranks. `lp`: the split that minimises the busiest GPU, as an LP dispatcher
would choose it. Maps are [L, P] of expert ids; GPU g owns slots [g * S, (g + 1) * S).
"""

from __future__ import annotations

import random
from typing import Any, Literal

import numpy as np

from .replicate import Floats, Ints

Split = Literal["even", "sglang_static", "lp"]
SglangRule = Literal["newer", "older"]
ENGINE_SEED = 42


def copy_counts(maps: Ints, experts: int) -> Ints:
    """Copies of every expert in each layer, [L, E]."""
    layers = maps.shape[0]
    flat = maps + experts * np.arange(layers)[:, None]
    return np.bincount(flat.ravel(), minlength=layers * experts).reshape(layers, -1)


def even_loads(load: Floats, maps: Ints, gpus: int) -> Floats:
    """GPU loads [L, G] when each copy takes the same share; load [L, E]."""
    share = load / np.maximum(copy_counts(maps, load.shape[1]), 1)
    slot = np.take_along_axis(share, maps, axis=1)
    total: Floats = slot.reshape(maps.shape[0], gpus, -1).sum(axis=2)
    return total


def static_shares(
    maps: Ints,
    experts: int,
    gpus: int,
    nodes: int,
    rule: SglangRule = "newer",
    seed: int | None = ENGINE_SEED,
) -> Floats:
    """Share of its expert's tokens that each slot takes, [L, P].

    rule "newer": the first copy on the node is taken only if some copy is elsewhere;
    "older": whenever the node has one. `seed` replays the engine's draw for the ranks
    that are left (42 there); None gives its expectation.
    """
    draw = None if seed is None else random.Random(seed)
    share = np.zeros(maps.shape)
    for layer, row in enumerate(maps):
        order = np.argsort(row, kind="stable")
        cuts = np.searchsorted(row[order], np.arange(experts + 1))
        for expert in range(experts):
            copies = order[cuts[expert] : cuts[expert + 1]].tolist()
            _expert_shares(share[layer], copies, maps.shape[1], gpus, nodes, rule, draw)
    return share / gpus


def _expert_shares(
    share: Floats,
    copies: list[int],
    slots: int,
    gpus: int,
    nodes: int,
    rule: SglangRule,
    draw: random.Random | None,
) -> None:
    """Add, per copy of one expert, the number of ranks that send to it."""
    per_gpu, per_node = slots // gpus, slots // nodes
    if len(copies) == 1:
        share[copies[0]] = gpus
        return
    on_gpu: dict[int, int] = {}
    on_node: dict[int, list[int]] = {}
    for slot in copies:
        on_gpu.setdefault(slot // per_gpu, slot)
        on_node.setdefault(slot // per_node, []).append(slot)
    left = 0
    for rank in range(gpus):
        near = on_node.get(rank * per_gpu // per_node, [])
        if rank in on_gpu:
            share[on_gpu[rank]] += 1
        elif near and (rule == "older" or len(near) < len(copies)):
            share[near[0]] += 1
        else:
            left += 1
    _draw(share, copies, left, draw)


def _draw(
    share: Floats, copies: list[int], left: int, draw: random.Random | None
) -> None:
    """Deal the ranks that are left: evenly, the remainder by sample, then shuffled.

    The shuffle decides only which rank goes where; it is run to keep the stream.
    """
    if draw is None:
        share[copies] += left / len(copies)
        return
    whole, rest = divmod(left, len(copies))
    share[copies] += whole
    extra = draw.sample(copies, k=rest)
    share[extra] += 1
    draw.shuffle(copies * whole + extra)


def static_loads(
    load: Floats,
    maps: Ints,
    gpus: int,
    nodes: int,
    rule: SglangRule = "newer",
    seed: int | None = ENGINE_SEED,
) -> Floats:
    """GPU loads [L, G] under sglang_static dispatch with uniform source traffic."""
    share = static_shares(maps, load.shape[1], gpus, nodes, rule, seed)
    slot = share * np.take_along_axis(load, maps, axis=1)
    total: Floats = slot.reshape(maps.shape[0], gpus, -1).sum(axis=2)
    return total


def lp_top(load: Floats, maps: Ints, gpus: int) -> Floats:
    """Load of the busiest GPU [L] under the best split of every expert's tokens."""
    return np.array(
        [_lp_row(load[i], maps[i].reshape(gpus, -1)) for i in range(maps.shape[0])]
    )


def _lp_row(load: Floats, expert: Ints) -> float:
    """min t : sum_g x_eg = w_e, sum_e x_eg <= t, x >= 0 on the pairs of the map."""
    import highspy

    gpu = np.repeat(np.arange(expert.shape[0]), expert.shape[1])
    pairs = np.unique(np.stack([expert.ravel(), gpu], axis=1), axis=0)
    scale = float(load.sum()) / expert.shape[0] or 1.0
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    model = _lp_model(highspy, load / scale, pairs, expert.shape[0])
    solver.passModel(model)
    solver.run()
    if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        raise RuntimeError(f"dispatch LP ended as {solver.getModelStatus()}")
    return float(solver.getInfo().objective_function_value) * scale


def _lp_model(highspy: Any, load: Floats, pairs: Ints, gpus: int) -> Any:
    """Columns: one per (expert, GPU) pair, then t. Rows: experts, then GPUs."""
    count, experts = len(pairs), load.size
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = count + 1, experts + gpus
    model.col_cost_ = np.append(np.zeros(count), 1.0)
    model.col_lower_ = np.zeros(count + 1)
    model.col_upper_ = np.full(count + 1, highspy.kHighsInf)
    model.row_lower_ = np.append(load, np.full(gpus, -highspy.kHighsInf))
    model.row_upper_ = np.append(load, np.zeros(gpus))
    matrix = model.a_matrix_
    matrix.format_ = highspy.MatrixFormat.kColwise
    matrix.start_ = np.append(2 * np.arange(count + 1), 2 * count + gpus)
    rows = np.stack([pairs[:, 0], experts + pairs[:, 1]], axis=1).ravel()
    matrix.index_ = np.append(rows, experts + np.arange(gpus))
    matrix.value_ = np.append(np.ones(2 * count), np.full(gpus, -1.0))
    return model
