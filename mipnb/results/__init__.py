"""What the paper's tables and figures are made of: methods trained and asked, one unit of work at a time, and resumable."""
