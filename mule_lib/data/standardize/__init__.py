"""Standardization by an LLM (Sections 3.2, 3.3): raw text to records, anchors and evaluation sets.

In the order of reading: `pipeline` starts, puts all together and writes, `pairs` and `attacker` say what is
asked for, `chunks` and `checks` what goes in and what comes through, `ask` and `generators` how a model is asked.
"""
