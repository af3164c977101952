"""The production-readiness report."""
