"""Where it runs: devices, hosts, checkpoints."""
