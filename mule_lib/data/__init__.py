"""Raw text to records and evaluation sets: the record and its checks, Fable, published benchmarks, text judges."""
