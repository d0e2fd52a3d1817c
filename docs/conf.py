# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
# The handbook. Build it with: .venv/bin/sphinx-build -W -n -b dirhtml docs docs/_build

project = "Le manuel d'infini-infra"
author = "Infini"
copyright = "Infini, GPL-3.0-or-later"
language = "fr"

extensions = ["myst_parser"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = project
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
