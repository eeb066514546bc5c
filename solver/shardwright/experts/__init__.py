"""Expert placement: which expert sits in which slot, with replicas, and how good it is.

`plan_experts` is the one call; `read_loads` and `read_map` read what engines record.
"""

from .dispatch import even_loads as even_loads
from .dispatch import lp_top as lp_top
from .dispatch import static_loads as static_loads
from .effort import FAST as FAST
from .effort import Deadline as Deadline
from .effort import Effort as Effort
from .loads import LoadTable as LoadTable
from .loads import read_loads as read_loads
from .loads import read_map as read_map
from .plan import ExpertPlan as ExpertPlan
from .plan import plan_experts as plan_experts
from .problem import scenario_tables as scenario_tables
