"""mipnb: cross-modal unlearning by neuron-path editing, as a workbook (Li et al., AAAI 2026, arXiv 2511.06793).

Importing the package is free of side effects and loads no model library; import the modules you need.
"""

__version__ = "0.1.0"
