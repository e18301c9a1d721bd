"""The steps of a release, in the order in which a model travels. Values in, a value out.

pull -> convert -> verify -> package -> smoke -> promote; `release` lists them and remembers what is up to date.
Steps do not print, parse or exit, and only `release` calls another one.
"""
