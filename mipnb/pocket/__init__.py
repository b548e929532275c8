"""The embedded benchmark: fictitious people with drawn portraits, in MLLMU-Bench's own files."""
