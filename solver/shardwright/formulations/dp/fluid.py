"""The price of a replica whose stages may be cut anywhere: a bound without a walk.

A stage of unit u holds at most n_u layers (q tau <= Theta, memory, prefill), so each of
its layers carries at least 1/n_u of its price and of what it costs whatever it holds.
With a multiplier mu >= 0 on S <= Theta, and hops left out,

    LB(Theta) = max over mu of  L min_u ((pi_u + mu d_u) / n_u + mu a_u)  -  mu Theta

bounds the price of every design with TPOT <= Theta from below; d_u is the least
constant of its roles. Any multipliers are valid.
"""

from __future__ import annotations

import numpy as np

from shardwright.formulations.dp.pricing import FloatArray, Pricer, Prices

_MULTIPLIERS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.6, 1.0, 2.0)
"""Of (price of a fast design) / Theta, which is what a walk's end up near."""


def fluid_price(pricer: Pricer, prices: Prices, theta: FloatArray) -> FloatArray:
    """LB of every point at its cap (N); inf where no stage holds a layer."""
    own = zip(pricer.unit_class.tolist(), pricer.gpus.tolist(), strict=True)
    price = np.array([prices.per_unit(k, t) for k, t in own])
    most = np.minimum(pricer.caps(theta).max(axis=2), pricer.problem.layers)
    holds, most = most >= 1, np.maximum(most, 1)
    fixed, layer = pricer.decode_role.min(axis=2), pricer.decode_layer
    best = np.full(theta.size, -np.inf)
    for share in _MULTIPLIERS:
        mu = share * pricer.tokens / theta**2
        each = (price + mu[:, None] * fixed) / most + mu[:, None] * layer
        least = np.where(holds, each, np.inf).min(axis=1)
        best = np.maximum(best, pricer.problem.layers * least - mu * theta)
    return best
