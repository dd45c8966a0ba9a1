"""The networks of the paper's suite in PyTorch (`torch` extra), one file each. `models.suite` offers them as models."""
