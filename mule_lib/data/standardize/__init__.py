"""Standardization by an LLM (Sections 3.2, 3.3): raw text to records, anchors and evaluation sets.

In the order of reading: `command` starts and writes, `pipeline` puts all together, `pairs` and `attacker` say what is
asked for, `chunks` and `checks` what goes in and what comes through, `ask` and `generators` how a model is asked.
"""
