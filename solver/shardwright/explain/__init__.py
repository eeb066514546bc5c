"""Why nothing fits and what would, or what binds a plan and where it breaks."""

from shardwright.explain.report import Explanation as Explanation
from shardwright.explain.report import explain as explain
