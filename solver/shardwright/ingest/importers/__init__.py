"""Importers: what the tools of a cluster print, as a cluster document."""

from shardwright.ingest.importers.imported import ImportedCluster as ImportedCluster
from shardwright.ingest.importers.imported import import_cluster as import_cluster
