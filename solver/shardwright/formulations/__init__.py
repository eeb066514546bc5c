"""The integer programs: the same file and rule names in every engine's folder."""
