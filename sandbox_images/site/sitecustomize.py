"""Run by every Python of a sandbox as it starts: packages can be installed while a program runs.

Python looks for packages below the home folder only if that folder is there when it starts, and
remembers of a folder that is missing that there is nothing in it. So a program that runs pip could
not import what pip installed.
"""

import site
import sys

if site.ENABLE_USER_SITE and (folder := site.getusersitepackages()) not in sys.path:
    # Where Python itself puts it: behind its own library, before the image's packages.
    shared = (n for n, each in enumerate(sys.path) if each.endswith("dist-packages"))
    sys.path.insert(next(shared, len(sys.path)), folder)
    external = sys.modules["_frozen_importlib_external"]
    sys.path_importer_cache[folder] = external.FileFinder(
        folder,
        *external._get_supported_file_loaders(),  # noqa: SLF001 - as importlib itself does
    )
