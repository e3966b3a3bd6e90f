"""How Sphinx builds this documentation: sphinx-build -W docs docs/_build/html"""

import importlib.metadata

project = "funcplat"
author = "The funcplat authors"
copyright = "The funcplat authors; Apache License 2.0"
release = importlib.metadata.version("funcplat")
version = release

extensions = ["sphinx.ext.autodoc", "oslo_config.sphinxext", "reno.sphinxext"]
exclude_patterns = ["_build"]
nitpicky = False

html_theme = "alabaster"
html_theme_options = {"description": "A function platform that you run yourself", "page_width": "75rem"}
html_show_sphinx = False

autodoc_typehints = "description"
