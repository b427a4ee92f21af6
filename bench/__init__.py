"""
The benchmark this project lives by: the proxy and its peers, measured in one run, in turns.

Started as `python -m bench` from the root of the repository; `README.md` beside this file says how
the figures are taken and how to read them. Never imported by `sidecar`.
"""
