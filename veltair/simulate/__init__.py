"""The same scheduler on a virtual clock."""
