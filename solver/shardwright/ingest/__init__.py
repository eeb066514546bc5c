"""Reading documents: strict loader, config.json, catalogue."""

from shardwright.ingest.catalogue import calibration as calibration
from shardwright.ingest.catalogue import gpu as gpu
from shardwright.ingest.catalogue import model as model
from shardwright.ingest.catalogue import names as names
from shardwright.ingest.huggingface import read_config as read_config
from shardwright.ingest.load import instance_sha256 as instance_sha256
from shardwright.ingest.load import load as load
from shardwright.ingest.load import load_plan as load_plan
from shardwright.ingest.parameters import parameter_count as parameter_count
