"""Speed and accuracy beside the peers: `python -m benchmarks AREA`. See README.md."""
