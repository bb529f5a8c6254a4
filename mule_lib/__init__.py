"""The map of the house: twelve rooms in the order of reading, each of which imports only rooms above it.

 1 params      what every notebook, method and suite takes: schemas, YAML in, errors in one line
 2 paper       the paper's printed numbers and its Overall Performance (Tables 1 to 3)
 3 prompts     the only chat renderer: intentions, chain of thought, ensemble, prefilled answers (Section 3.4)
 4 losses      every loss once, on answer logits; Eq. 3 is `bidirectional_topk`
 5 gradients   gradients per objective, their cosines, NGDiff, MOLLM (Sections 3.1 and 5.1)
 6 data        raw text to unified records and evaluation sets (Sections 3.2, 3.3 and 5.1), and Fable's invented worlds
 7 models      load a causal language model, write with it, score options, its head at answer positions only
 8 methods     the paper's rows as one table: terms, teacher, gradient rule, options
 9 training    the teacher's answers and exact logits, balanced batches, one trainer; the pilot study of Figure 2
10 evaluate    the five metrics, attacks, bootstrap intervals, and what a run leaves behind
11 report      run folders to tables, figures, claims and one page; computes no result
12 suite       run folders and their identity, papermill, Snakemake, the `mule` command

Rooms 2 to 10 make numbers, so their code is part of a run's identity; rooms 1, 11 and 12 check, read and start.
"""
