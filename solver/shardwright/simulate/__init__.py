"""Discrete-event simulation of replicas: an independent judge of the closed forms."""

from shardwright.simulate.fleet import Served as Served
from shardwright.simulate.fleet import serve as serve
from shardwright.simulate.machine import Group as Group
from shardwright.simulate.machine import Machine as Machine
from shardwright.simulate.machine import StageLaw as StageLaw
from shardwright.simulate.measure import Measured as Measured
from shardwright.simulate.measure import estimate as estimate
from shardwright.simulate.requests import Requests as Requests
