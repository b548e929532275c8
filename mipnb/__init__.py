"""mipnb: cross-modal unlearning by neuron-path editing (arXiv 2511.06793), as a workbook.

Importing the package is free of side effects and loads no model library; import the modules you need.
"""

__version__ = "0.1.0"
