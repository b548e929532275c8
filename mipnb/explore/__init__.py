"""Exploring a run: what a neuron does, what edited models answer, how strong an edit is, how runs differ.

Computing functions (`neurons`, `ask`, `dial`, `runs`) need no front end; `panels` has a widget over each of them.
"""
