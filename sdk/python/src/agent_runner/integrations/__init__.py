"""Adapters for agent frameworks, each an extra of this distribution.

    deepagents       LangChain's deepagents: a sandbox as the backend of an agent
    deepagents_code  the same for Deep Agents Code, which makes and ends the sandboxes itself
    inspect          Inspect: a sandbox for each sample of an evaluation
    refusals         what several of them share: a kernel's refusal as an OSError

Nothing here is imported unless a framework or its user asks for it, and a module imports no other
framework than its own. The development environment has none of the frameworks, so mypy's ordinary
run skips these modules. Their tests (tests/e2e/frameworks) check them, as strictly, in an
environment that has the framework.
"""
