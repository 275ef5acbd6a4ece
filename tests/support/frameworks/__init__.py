"""Agent frameworks, each in an environment of its own with our SDK, against a real deployment.

    locks      NAME.in says what an environment has, NAME.lock in which versions (`make lock`)
    inside     runs programs and test suites in an environment, and checks types against it
    scripted   a model that says what a test wrote
    programs   what runs there: it imports a framework and our SDK, and nothing of this tree

Our own environment has no framework, so mypy's ordinary run skips `programs` and the SDK's
`integrations`. The tests of a framework check both with `Framework.mistakes`.
"""
