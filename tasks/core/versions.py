"""Version constants: each enters the key of what it makes, and is raised when results change.

A golden test on a small fixed input fails when the numbers change, until the version is raised.
"""

MEDIA = 1
"""Files and a spec -> pixels."""

EXTRACTOR = 1
"""Pixels, a backbone and a tap -> a row of features."""

TRAINER = 2
"""Rows, labels and hyper-parameters -> a head."""

FINETUNER = 1
"""Looks, labels and a network's settings -> layers, and what they say."""

SCORER = 4
"""Predictions -> scores and intervals."""

COPIES = 1
"""Rows -> pairs of near copies."""

CURVE = 1
"""A training part -> nested shares of it, and which of them are learnt from."""

VERDICT = 1
"""Cells -> what is said of them, and which shares are measured."""

ANSWERS = 1
"""Answers to several targets -> parts, folds, weights in a joint loss, and scores."""
