"""E2B's own SDKs, each in an environment of its own, against a real deployment.

    targets       which SDKs, and in which versions
    matrix        programs of targets that run beside each other; what became of each case
    case, world   what the programs in the environments are written with
    cases         the cases: one function each, for the sync and the async classes alike
    run           the program: runs cases in one version, and says what became of each
    sdk.mjs       the same for JavaScript

`case`, `world`, `cases` and `run` are imported in environments that have nothing but an SDK.
"""
