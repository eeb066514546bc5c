"""Failures: what they hit, the best plan on what is left, and what has to move."""

from shardwright.resilience.classes import FailureClass as FailureClass
from shardwright.resilience.classes import failure_classes as failure_classes
from shardwright.resilience.report import Failures as Failures
from shardwright.resilience.report import failures as failures
from shardwright.resilience.survivors import without_gpus as without_gpus
