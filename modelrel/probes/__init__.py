"""Rows to ask a model about: read from files (`rows`), and made up as a person would who wants to find a fault."""
