"""How many examples of each kind a step of each stage has, and what they weigh."""

# Examples per step and loss weight of each kind. Weights are shares of the step's loss, not of its tokens.
MIX: dict[str, dict[str, tuple[int, float]]] = {
    "skills": {
        "recall": (24, 1.0),
        "say": (12, 0.5),
        "match": (16, 0.7),
        "match_thought": (8, 0.5),
        "letter": (32, 1.0),
    },
    # Comparing words is learned on lists of two to four, where attention is not spread thin, and carries over.
    "comparing": {
        "recall_short": (32, 1.0),
        "letter_short": (32, 1.0),
        "letter": (12, 0.5),
        "say": (4, 0.2),
        "match": (16, 0.6),
        "match_thought": (8, 0.4),
    },
    "worlds": {
        "open": (16, 1.0),
        "open_prefix": (8, 0.5),
        "choice": (28, 1.5),
        "choice_text": (8, 0.5),
        "naming": (6, 0.3),
        "passage": (2, 0.4),
        "obey_thought": (18, 1.2),
        "obey": (8, 0.5),
        "recall_thought": (6, 0.4),
        "match": (6, 0.3),
        "match_thought": (2, 0.1),
        "letter": (6, 0.3),
    },
    # Facts are learned within the first thousand steps; choosing a letter by a remembered fact takes the rest.
    "choosing": {
        "open": (8, 0.5),
        "open_prefix": (6, 0.4),
        "choice": (40, 2.0),
        "choice_text": (8, 0.5),
        "naming": (2, 0.1),
        "passage": (1, 0.1),
        "obey_thought": (20, 1.2),
        "obey": (8, 0.5),
        "recall_thought": (8, 0.5),
        "match": (3, 0.15),
        "match_thought": (2, 0.1),
        "letter": (8, 0.4),
    },
    # The verdict of a thought has to hang on the title that the thought named, whatever that title is.
    "deciding": {
        "match_topic": (24, 1.0),
        "obey_thought": (20, 1.2),
        "obey": (8, 0.4),
        "open": (10, 0.6),
        "open_prefix": (8, 0.5),
        "choice_text": (10, 0.6),
        "choice": (10, 0.5),
        "naming": (4, 0.3),
        "letter": (4, 0.2),
        "match": (4, 0.1),
    },
    "verdicts": {
        "match_topic": (40, 2.0),
        "obey_thought": (20, 1.2),
        "obey": (6, 0.3),
        "open": (6, 0.4),
        "open_prefix": (4, 0.3),
        "choice_text": (6, 0.5),
        "choice": (4, 0.3),
        "naming": (4, 0.3),
    },
}
