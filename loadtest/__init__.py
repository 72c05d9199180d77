"""Load scenarios and the GO / NO-GO gate; nothing is here yet.

No module here may bear a standard-library name: Locust puts this folder first on the path.
"""
