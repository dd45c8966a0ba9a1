"""The offline stage: a model file in, a bundle of measured and gated variants out. Start at `build.compile_model`."""
