"""The integer problem compiled from documents and cost tables."""

from shardwright.problem.compile import Compiler as Compiler
from shardwright.problem.compile import compile_problem as compile_problem
from shardwright.problem.expert_maps import ExpertMaps as ExpertMaps
from shardwright.problem.expert_maps import mixtures as mixtures
from shardwright.problem.integers import Problem as Problem
from shardwright.problem.limits import EngineSwitches as EngineSwitches
from shardwright.problem.types import ROUNDING as ROUNDING
from shardwright.problem.types import Bounds as Bounds
from shardwright.problem.types import Design as Design
from shardwright.problem.types import Figures as Figures
from shardwright.problem.types import Fleet as Fleet
from shardwright.problem.types import GpuClass as GpuClass
from shardwright.problem.types import IntArray as IntArray
from shardwright.problem.types import Island as Island
from shardwright.problem.types import PlacedReplica as PlacedReplica
from shardwright.problem.types import Point as Point
from shardwright.problem.types import Rules as Rules
from shardwright.problem.types import Signature as Signature
from shardwright.problem.types import StageChoice as StageChoice
from shardwright.problem.types import Tables as Tables
from shardwright.problem.types import Unit as Unit
from shardwright.problem.types import crossings_of as crossings_of
from shardwright.problem.types import stage_roles as stage_roles
