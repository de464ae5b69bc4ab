"""Checks the configuration of an experiment as a whole, before anything starts.

`strict_yaml` and `override_text` read the sources, `overrides` checks their keys, types and ranges,
`experiment_check` the complete configuration: ranges of all fields, `relations` between fields and
the `memory` they need. `schema` joins Model Garden's type hints with the tables of rules.
"""
