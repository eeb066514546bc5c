"""Percentiles of latency under load: closed forms, evaluated on a fixed set of points.

docs/tails.md derives them; the simulator (``shardwright.simulate``) is their judge.
"""

from shardwright.cost.tails.evaluate import Blend as Blend
from shardwright.cost.tails.evaluate import Tails as Tails
from shardwright.cost.tails.evaluate import evaluate as evaluate
from shardwright.cost.tails.evaluate import evaluate_pair as evaluate_pair
from shardwright.cost.tails.lengths import LengthLaw as LengthLaw
from shardwright.cost.tails.lengths import RequestLaw as RequestLaw
from shardwright.cost.tails.rates import Target as Target
from shardwright.cost.tails.rates import cheap_bounds as cheap_bounds
from shardwright.cost.tails.rates import max_rate as max_rate
from shardwright.cost.tails.station import IterationLaw as IterationLaw
from shardwright.cost.tails.station import Station as Station
