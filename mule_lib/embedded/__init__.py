"""The embedded language model: its tokenizer, its curriculum and its training."""
