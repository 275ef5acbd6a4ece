"""Results of verl's own client, for each kind of end. Runs where verl is installed.

The package verl imports torch and Ray when it is imported. Its client needs neither, so this gives
it the packages around it without what they import. The client itself is unmodified.
"""

import json
import sys
from importlib import import_module
from importlib.metadata import distribution
from types import ModuleType

URL = sys.argv[1]
SITE = distribution("verl").locate_file("verl")
for name, path in (("verl", f"{SITE}"), ("verl.utils", f"{SITE}/utils")):
    package = ModuleType(name)
    package.__path__ = [path]
    sys.modules[name] = package

fusion = import_module("verl.utils.reward_score.sandbox_fusion")
check_correctness = fusion.check_correctness

ECHO = "import sys; print(sys.stdin.read())"
TWO = {"inputs": ["1", "2"], "outputs": ["1\n", "wrong"]}
ONE = {"inputs": ["1"], "outputs": ["1\n"]}
FUNCTION = {"inputs": ["[1, 2]\n3"], "outputs": ["[1, 2, 3]\n"], "fn_name": "added"}
seen = {
    "right and wrong": check_correctness(URL, TWO, ECHO),
    "an error": check_correctness(URL, ONE, "raise ValueError"),
    "time": check_correctness(URL, ONE, "import time; time.sleep(20)", timeout=2),
    "a compiler's error": check_correctness(URL, ONE, "a=b", language="cpp"),
    "a function": check_correctness(URL, FUNCTION, "def added(a, b): return a + [b]"),
}
score, _ = fusion.compute_score(URL, None, 1024, f"```python\n{ECHO}\n```", TWO)
statuses = {name: [each["status"] for each in told] for name, (_, told) in seen.items()}
results = {name: found for name, (found, _) in seen.items()}
sys.stdout.write(json.dumps({"results": results, "statuses": statuses, "score": score}) + "\n")
