"""Short trainings that compare designs: the paper's ablations, and the baselines to be beaten.

`python -m afd_mobile.experiments --help` runs them. Nothing else of the project uses this package.
"""
