"""The entry point of a sandbox, kept short: Python compiles the file that it starts each time."""

import interpreter
from serve import main

if (script := main()) is not None:
    interpreter.run(script)
