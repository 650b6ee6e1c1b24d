"""A kind that the project does not have: classification of short sequences of whole numbers, as small as a kind can be.

``tests/test_made_kind.py`` copies ``service`` and ``tasks`` into a copy of the project as the kind's two packages, and
``workload`` as a workload of it. Nothing here is imported where it lies, but for ``sequences``.
"""
