"""Tuning records as package data (see README.md). `veltair.compiler.records` reads them."""
