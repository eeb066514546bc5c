"""Reports: requirements, margins, failures, and recommendations that were solved."""

from shardwright.report.compliance import Compliance as Compliance
from shardwright.report.compliance import compliance as compliance
