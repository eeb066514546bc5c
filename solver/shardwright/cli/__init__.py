"""The command line: one small module per command, no logic."""

from shardwright.cli.app import main as main
