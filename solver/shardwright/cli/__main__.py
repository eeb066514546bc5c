"""``python -m shardwright.cli``."""

from shardwright.cli.app import main

main()
