"""Measures the platform beside a peer, in one run; see docs/operator/performance.rst."""
