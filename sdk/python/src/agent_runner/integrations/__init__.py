"""Adapters for agent frameworks, each an extra of this distribution.

    adk              Google's Agent Development Kit: a sandbox as an environment
    deepagents       LangChain's deepagents: a sandbox as the backend of an agent
    deepagents_code  the same for Deep Agents Code, which makes and ends the sandboxes itself
    inspect          Inspect: a sandbox for each sample of an evaluation
    openai_agents    the OpenAI Agents SDK: a client that makes the sandboxes of sessions
    pydantic_ai      Pydantic AI: a sandbox as a workspace
    smolagents       smolagents: a sandbox where the code of an agent runs
    commands         what several of them share: a command that ends if it is cancelled
    refusals         the same: a kernel's refusal as an OSError

Nothing here is imported unless a framework or its user asks for it, and a module imports no other
framework than its own. The development environment has none of the frameworks, so mypy's ordinary
run skips these modules. Their tests (tests/e2e/frameworks) check them, as strictly, in an
environment that has the framework.
"""
