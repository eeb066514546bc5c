"""Plans: decoding a search's fleet into the document, its figures and tables."""

from shardwright.plan.decode import decode as decode
from shardwright.plan.idle import why_idle as why_idle
from shardwright.plan.metrics import metrics as metrics
from shardwright.plan.naming import settle as settle
from shardwright.plan.view import PlanView as PlanView
