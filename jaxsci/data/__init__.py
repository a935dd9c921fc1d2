"""Data that come with the package. Code lies here only where it belongs to one data set, as in `data.nist`."""
