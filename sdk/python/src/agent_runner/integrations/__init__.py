"""Adapters for agent frameworks, each an extra of this distribution.

Nothing here is imported unless a framework or its user asks for it, and a module imports no other
framework than its own. The development environment has none of the frameworks, so mypy's ordinary
run skips these modules. Their tests (tests/e2e/frameworks) check them, as strictly, in an
environment that has the framework.
"""
