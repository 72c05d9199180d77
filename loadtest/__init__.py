"""Load scenarios and the GO / NO-GO gate.

No module here may bear a standard-library name: Locust puts this folder first on the path.
"""
