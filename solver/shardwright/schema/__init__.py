"""The documents people read and write: pydantic, frozen, versioned."""

from shardwright.schema.base import SCHEMA_VERSION as SCHEMA_VERSION
from shardwright.schema.base import Document as Document
from shardwright.schema.instance import Fix as Fix
from shardwright.schema.instance import Instance as Instance
from shardwright.schema.instance import InstanceFile as InstanceFile
from shardwright.schema.plan import Plan as Plan
from shardwright.schema.result import Result as Result
from shardwright.schema.result import Status as Status
