"""LLM-assisted data standardization (Sections 3.2 and 3.3): raw text to records, anchors and evaluation sets."""
