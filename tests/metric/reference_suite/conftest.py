"""The package of the reference library's name is for `run.py` alone."""

collect_ignore = ["pytorch_metric_learning", "run.py"]
