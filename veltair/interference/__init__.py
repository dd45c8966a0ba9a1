"""What disturbs us on this machine, seen and foreseen: the host's profile, probe, antagonists, sources of pressure, the model."""
